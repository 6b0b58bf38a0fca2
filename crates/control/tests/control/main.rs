//! Control as a whole, against a worker and a store in memory that fail, hang and die on demand.

mod admission;
mod adoption;
mod background;
mod destroy;
mod exec;
mod extend;
mod leaks;
mod reach;
mod spawn;
mod support;
mod vanish;
mod workers;
