//! Replays the golden transcripts against the built binary.
//!
//! A transcript says what is asked and what has to be answered; `ours` in it says where we answer
//! otherwise, and why. How answers are compared stands in `compare`; the steps that only words
//! describe are checked in `by_hand`; what is not built yet stands in `waiting`.

mod by_hand;
mod compare;
mod expect;
mod replay;
mod transcript;
mod vars;
mod waiting;

use replay::replay;

#[tokio::test]
async fn sandboxes() {
    replay("sandboxes", "mock").await;
}

#[tokio::test]
async fn exec() {
    replay("exec", "mock").await;
}

#[tokio::test]
async fn exec_on_native() {
    replay("exec", "native").await;
}

#[tokio::test]
async fn files() {
    replay("files", "mock").await;
}

#[tokio::test]
async fn files_on_native() {
    replay("files", "native").await;
}

#[tokio::test]
async fn system() {
    replay("system", "mock").await;
}

#[tokio::test]
async fn door_open() {
    replay("door-open", "mock").await;
}

#[tokio::test]
async fn door_one_key() {
    replay("door-one-key", "mock").await;
}

#[tokio::test]
async fn door_one_key_strict() {
    replay("door-one-key-strict", "mock").await;
}

#[tokio::test]
async fn door_admin_key() {
    replay("door-admin-key", "mock").await;
}
