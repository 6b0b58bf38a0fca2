//! End to end: the built binary, driven as a user would.

#[cfg(test)]
mod e2e {
    mod arrows;
    mod attacks;
    mod bugs;
    mod cli;
    mod crashes;
    mod documents;
    mod golden;
    mod programs;
    mod rootless;
    mod sdk;
    mod terminals;
}
