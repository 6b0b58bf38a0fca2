//! End to end: the built binary, driven as a user would.

#[cfg(test)]
mod e2e {
    mod arrows;
    mod attacks;
    mod bugs;
    mod certificates;
    mod cli;
    mod completion;
    mod copies;
    mod crashes;
    mod documents;
    mod golden;
    mod images;
    mod programs;
    mod rootless;
    mod sdk;
    mod terminals;
    mod warm;
}
