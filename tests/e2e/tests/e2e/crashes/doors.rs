//! What clients do in the chaos beside plain commands and files: raw content, archives, terminals,
//! commands that outlive their clients.

use std::io::Cursor;
use std::time::Duration;

use client::api::{ExecRequest, ServerWord};
use client::{Client, Error, Heard, Topic};

use super::world::shell;

/// More than a message to the agent and less than a sandbox's disk.
const LARGE: usize = 1_200_000;
/// Longer than a command here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// Up and down again: what comes back is one whole upload, of whoever was last.
pub async fn content(client: &Client, id: &str, byte: u8) -> Result<(), Error> {
    client.upload(id, "/workspace/raw", None, Cursor::new(vec![byte; LARGE])).await?;
    let mut content = client.download(id, "/workspace/raw").await?;
    let (mut seen, mut first) = (0, None);
    while let Some(piece) = content.next().await? {
        let first = *first.get_or_insert(piece[0]);
        assert!(piece.iter().all(|b| *b == first), "two uploads in one file");
        seen += piece.len();
    }
    assert_eq!(seen, LARGE);
    Ok(())
}

/// A directory, nobody else's, goes in and comes out as an archive.
pub async fn archive(client: &Client, id: &str, to: &str) -> Result<(), Error> {
    let mut tar = tar::Builder::new(Vec::new());
    for n in 0..20 {
        let mut header = tar::Header::new_gnu();
        header.set_size(1000);
        header.set_mode(0o644);
        header.set_cksum();
        let name = format!("d{}/f{n}", n % 3);
        tar.append_data(&mut header, name, &[b'x'; 1000][..]).expect("memory takes it");
    }
    let bytes = tar.into_inner().expect("memory takes it");
    client.upload_archive(id, to, Cursor::new(bytes)).await?;
    let mut packed = client.download_archive(id, to, "zstd").await?;
    while packed.next().await?.is_some() {}
    Ok(())
}

/// A terminal, whose client leaves in the middle or waits for the end.
pub async fn terminal(client: &Client, id: &str, stays: bool) -> Result<(), Error> {
    let request = ExecRequest { tty: Some(true), ..shell("echo begun; read x; exit 7") };
    let (mut speaker, mut listener) =
        client.talk(id, &Topic::Start(Box::new(request)), true).await?;
    let mut answered = false;
    while let Some(heard) = listener.next().await? {
        match heard {
            Heard::Stdout(_) if !answered => {
                if !stays {
                    return Ok(());
                }
                answered = true;
                speaker.stdin("go\n".into()).await?;
            }
            Heard::Word(ServerWord::Exit { exit_code, .. }) => assert_eq!(exit_code, 7),
            _ => {}
        }
    }
    Ok(())
}

/// Starts a command that leaves a line, once, whatever becomes of the server.
pub async fn detached(client: &Client, id: &str, exec_id: &str) -> Result<(), Error> {
    let script = format!("sleep 0.1; echo {exec_id} >> /workspace/ran; exit 5");
    let request = ExecRequest { exec_id: Some(exec_id.to_owned()), ..shell(&script) };
    client.exec_detached(id, &request).await.map(drop)
}

/// A command that was acknowledged ran to its end, once, and is remembered.
pub async fn ran_once(client: &Client, id: &str, exec_id: &str) {
    let record = client.exec_wait(id, exec_id, PATIENCE).await;
    let record = record.unwrap_or_else(|e| panic!("{id} {exec_id} is forgotten: {e}"));
    assert_eq!((record.state.as_str(), record.exit_code), ("exited", Some(5)), "{record:?}");
    let count = client.exec(id, &shell(&format!("grep -cx {exec_id} /workspace/ran"))).await;
    assert_eq!(count.map(|c| c.stdout).unwrap_or_default(), "1\n", "{id} {exec_id}");
}
