//! What every store must do, each case a function over a [`bed::Bed`], run on every database there
//! is; then what only SQLite has: its file.

// Test code through and through, which the lint sees only in functions marked as tests.
#![allow(clippy::unwrap_used)]

mod bed;
mod changes;
mod claims;
mod durability;
mod execs;
mod faults;
mod files;
mod inserts;
mod lists;
mod sweeps;
mod workers;

/// A case that is not named here is dead code, and the lints say so.
macro_rules! contract {
    ($bed:ident: $($room:ident::$case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$room::$case(&crate::bed::$bed::new()).await;
            }
        )*
    };
}

mod sqlite {
    contract! {
        SqliteBed:
        inserts::a_sandbox_comes_back_as_it_was,
        inserts::bug_31_a_taken_id_is_reported,
        inserts::limits_hold_under_concurrent_inserts,
        inserts::a_limit_counts_only_what_lives,
        inserts::counters_equal_a_count_after_a_random_walk,
        claims::a_key_finds_its_spawn_until_it_is_forgotten,
        claims::a_key_whose_spawn_failed_is_free,
        claims::a_name_is_held_by_one_living_sandbox_of_an_owner,
        claims::a_name_and_a_key_go_together,
        claims::of_many_at_once_one_is_made,
        claims::bug_32_keys_and_what_they_hold_are_purged,
        changes::every_transition_is_allowed_or_refused_as_the_table_says,
        changes::conditions_must_hold,
        changes::fields_change_alone,
        changes::a_reason_is_set_once,
        changes::a_read_sees_every_answered_change,
        lists::newest_first_and_by_id_among_equals,
        lists::pages_neither_repeat_nor_skip,
        lists::a_tenant_sees_its_own,
        lists::bug_50_every_filter_finds_what_a_look_at_all_finds,
        sweeps::due_are_those_whose_time_is_up_oldest_first,
        sweeps::unfinished_is_what_a_crash_left,
        sweeps::a_worker_has_its_own,
        sweeps::bug_32_destroyed_rows_are_purged_in_batches,
        workers::an_upsert_keeps_created_at,
        workers::workers_are_listed_by_id_and_deleted,
        execs::an_id_is_taken_once_and_ends_once,
        execs::the_end_of_a_sandbox_is_the_end_of_what_runs_in_it,
        execs::outputs_are_kept_within_bounds_and_purged_with_their_records,
        execs::bug_50_plain_records_come_in_any_order_and_end_once,
        execs::bug_50_the_history_of_a_sandbox_comes_in_pages,
        execs::bug_32_of_plain_records_a_sandbox_keeps_the_newest,
        durability::what_was_answered_is_there_after_reopening,
        durability::a_record_reads_the_same_however_large_and_after_reopening,
        durability::closed_means_busy,
        durability::it_can_be_checked,
    }
}
