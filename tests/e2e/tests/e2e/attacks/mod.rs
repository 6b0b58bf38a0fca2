//! Programs that try to get out of a native sandbox, and must fail.
//!
//! The attacks are in `fixtures/attacker`, one program that tries one thing for each of its
//! arguments and says `held` or `broke`; here stands what each has to answer, against an imported
//! image and against `host`. Where it cannot hurt, the same program also runs in throw-away
//! namespaces without the wall that held it, and must get through there: so each test can fail.

mod agent;
mod archives;
mod control;
mod ends;
mod files;
mod ground;
mod images;
mod inside;
mod limits;
mod network;
mod processes;
mod program;
mod shared;
mod table;
mod walls;
