//! Many clients at once, each on a connection of its own.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::Client;
use crate::numbers::{Samples, thousands};

/// What many clients got done.
pub struct Load {
    pub samples: Samples,
    pub took: Duration,
    pub clients: usize,
}

impl Load {
    pub fn per_second(&self) -> f64 {
        self.samples.len() as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// The time that each would take if all were served in turn, evenly.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.clients as f64 / self.per_second().max(1e-9))
    }

    /// `1,234, 0.80 / 1.20`
    pub fn cell(&self) -> String {
        use crate::numbers::ms;
        let (p50, p99) = (ms(self.samples.p50()), ms(self.samples.p99()));
        format!("{}, {p50} / {p99}", thousands(self.per_second()))
    }
}

/// Has each client do `work` again and again for so long; what is under way then is finished and
/// counted.
pub async fn for_a_while<W>(clients: Vec<Client>, time: Duration, work: W) -> Result<Load, String>
where
    W: AsyncFn(&mut Client) -> Result<(), String> + Clone + Send + Sync + 'static,
{
    let number = clients.len();
    let begun = Instant::now();
    let end = begun + time;
    let local = tokio::task::LocalSet::new();
    let mut set = JoinSet::new();
    for mut client in clients {
        let work = work.clone();
        let task = async move {
            let mut samples = Samples::default();
            while Instant::now() < end {
                let begun = Instant::now();
                work(&mut client).await?;
                samples.add(begun.elapsed());
            }
            Ok::<_, String>(samples)
        };
        set.spawn_local_on(task, &local);
    }
    let samples = local.run_until(gather(set)).await?;
    Ok(Load { samples, took: begun.elapsed(), clients: number })
}

/// Has every client do `work` once, all at the same time; each sample counts from the common
/// start. Gives what they brought.
pub async fn all_at_once<T, W>(
    clients: Vec<Client>,
    work: W,
) -> Result<(Samples, Vec<(Client, T)>), String>
where
    T: 'static,
    W: AsyncFn(&mut Client) -> Result<T, String> + Clone + 'static,
{
    let begun = Instant::now();
    let local = tokio::task::LocalSet::new();
    let mut set = JoinSet::new();
    for mut client in clients {
        let work = work.clone();
        let task = async move {
            let made = work(&mut client).await?;
            Ok::<_, String>((begun.elapsed(), client, made))
        };
        set.spawn_local_on(task, &local);
    }
    let gathered = async {
        let (mut samples, mut made) = (Samples::default(), Vec::new());
        while let Some(done) = set.join_next().await {
            let (took, client, one) = done.map_err(|e| e.to_string())??;
            samples.add(took);
            made.push((client, one));
        }
        Ok::<_, String>((samples, made))
    };
    local.run_until(gathered).await
}

async fn gather(mut set: JoinSet<Result<Samples, String>>) -> Result<Samples, String> {
    let mut all = Samples::default();
    while let Some(done) = set.join_next().await {
        all.extend(done.map_err(|e| e.to_string())??);
    }
    Ok(all)
}
