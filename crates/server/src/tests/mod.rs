//! The server on a real socket, over a real `control` and store, with a worker that plays along.

mod fake;
mod house;

mod answers;
mod content;
mod doors;
mod history;
mod leaving;
mod pages;
mod repeats;
