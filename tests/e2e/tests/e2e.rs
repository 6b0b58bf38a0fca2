//! End to end: the built binary, driven as a user would.

mod e2e {
    mod golden;
}
