//! What every provider has to do, run against each: the provider contract.
//!
//! Needs what the provider needs; the native one is skipped, with the reason, only where `doctor`
//! says that it can't work.

#![allow(clippy::unwrap_used)] // a test may

mod cases;
mod client;
mod ground;

use ground::Ground;

macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod mock {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::cases::$case(super::Ground::mock().await).await;
            })*
        }
        mod native {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(ground) = super::Ground::native().await {
                    super::cases::$case(ground).await;
                }
            })*
        }
    };
}

contract!(
    it_lives_runs_commands_and_goes_without_a_trace,
    it_is_destroyed_by_its_id_alone,
    the_end_of_its_first_process_is_seen_and_named,
    its_deadline_ends_it,
    it_is_adopted_by_the_next_server,
    a_sweep_removes_what_nobody_claims_and_nothing_else,
    a_tied_one_ends_with_its_server,
    what_could_not_be_made_leaves_nothing,
    many_are_made_at_once,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_on_the_disk_store() {
    let Some(ground) = Ground::native_on_disk().await else { return };
    cases::its_disk_is_limited(ground).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_on_tmpfs() {
    let Some(ground) = Ground::native().await else { return };
    cases::its_disk_is_limited(ground).await;
}
