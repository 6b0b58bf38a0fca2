//! What is measured, one file each.

mod bulk;
mod cold;
mod exec;
mod growth;
mod idle;
mod pull;
mod requests;
mod sandbox;
mod terminal;
mod throughput;
mod together;
mod warm;

use crate::args::Args;
use crate::docker::Docker;
use crate::ground::{Busybox, Ground};
use crate::report::Report;

/// What a scenario works with.
pub struct Bench<'a> {
    pub args: &'a Args,
    pub busybox: &'a Busybox,
    pub docker: Option<&'a Docker>,
    pub report: Report,
}

pub async fn run(args: &Args) -> Result<Report, String> {
    let busybox = Busybox::make()?;
    let docker = docker(args, &busybox).await;
    let mut bench =
        Bench { args, busybox: &busybox, docker: docker.as_ref(), report: Report::default() };
    let native =
        ["cold", "exec", "terminal", "burst", "sustained", "stream", "files", "bulk", "idle"];
    if native.iter().any(|name| args.wants(name)) {
        let mut ground = Ground::native(&busybox).await?;
        on_native(&mut bench, &mut ground).await?;
        ground.finish().await?;
    }
    if args.wants("pull") {
        pull::measure(&mut bench).await?;
    }
    if args.wants("warm") {
        let ground = Ground::warm(&busybox, warm::POOL).await?;
        warm::measure(&mut bench, &ground).await?;
        ground.finish().await?;
    }
    if args.wants("requests") {
        let ground = Ground::mock().await;
        requests::measure(&mut bench, &ground).await?;
        ground.finish().await?;
    }
    if args.wants("growth") {
        let ground = Ground::mock().await;
        growth::measure(&mut bench, &ground).await?;
        ground.finish().await?;
    }
    Ok(bench.report)
}

async fn on_native(bench: &mut Bench<'_>, ground: &mut Ground) -> Result<(), String> {
    let args = bench.args;
    if args.wants("cold") {
        cold::measure(bench, ground).await?;
    }
    if args.wants("exec") {
        exec::measure(bench, ground).await?;
    }
    if args.wants("terminal") {
        terminal::measure(bench, ground).await?;
    }
    if args.wants("burst") {
        together::burst(bench, ground).await?;
    }
    if args.wants("sustained") {
        together::sustained(bench, ground).await?;
    }
    if args.wants("stream") {
        throughput::stream(bench, ground).await?;
    }
    if args.wants("files") {
        throughput::files(bench, ground).await?;
    }
    if args.wants("bulk") {
        bulk::measure(bench, ground).await?;
    }
    if args.wants("idle") {
        idle::measure(bench, ground).await?;
    }
    Ok(())
}

/// Only where something is compared with it.
async fn docker(args: &Args, busybox: &Busybox) -> Option<Docker> {
    let compared = ["cold", "exec", "sustained"].iter().any(|name| args.wants(name));
    if !args.docker || !compared {
        return None;
    }
    match Docker::start(busybox).await {
        Ok(docker) => Some(docker),
        Err(why) => {
            eprintln!("without docker: {why}");
            None
        }
    }
}
