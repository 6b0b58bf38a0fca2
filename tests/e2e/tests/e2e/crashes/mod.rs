//! The server, its helpers and its sandboxes die at every moment: what should live lives on, what
//! should not is gone.

mod archives;
mod chaos;
mod cycles;
mod doors;
mod imports;
mod one_shot;
mod parts;
mod repeats;
mod restart;
pub mod slate;
mod steps;
mod time;
pub mod world;
