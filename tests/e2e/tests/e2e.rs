//! End to end: the built binary, driven as a user would.

#[cfg(test)]
mod e2e {
    mod arrows;
    mod cli;
    mod crashes;
    mod golden;
    mod programs;
    mod sdk;
}
