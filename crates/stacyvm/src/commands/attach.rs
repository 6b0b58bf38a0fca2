//! `attach`: a command of a sandbox, on this terminal.

use std::io::IsTerminal;

use client::Topic;

use super::session::{self, Manner};
use super::{client, may_read};
use crate::cli::{Attach, Global};
use crate::failure::Failure;

pub async fn run(global: &Global, args: Attach) -> Result<u8, Failure> {
    let client = client(global)?;
    let record = client.exec_record(&args.id, &args.exec_id).await?;
    let topic = Topic::Attach { exec_id: args.exec_id, offset: args.offset };
    let (speaker, listener) = client.talk(&args.id, &topic, record.tty).await?;
    let input = !args.no_stdin && may_read(&record.state) && std::io::stdin().is_terminal();
    session::run(speaker, listener, Manner { tty: record.tty, input, may_leave: true }).await
}
