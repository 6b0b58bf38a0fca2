//! `kill`.

use serde_json::json;

use super::client;
use crate::cli::{Global, Kill};
use crate::failure::Failure;
use crate::output::{self, tame};

pub async fn run(global: &Global, args: Kill) -> Result<(), Failure> {
    let status = client(global)?.destroy(&args.id, args.grace).await?.status;
    if args.format.json {
        output::json(&json!({ "id": args.id, "status": status }))?;
    } else {
        output::line(&format!("{} {}", args.id, tame(&status)))?;
    }
    Ok(())
}
