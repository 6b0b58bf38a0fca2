//! The front door: HTTP in, `control` behind. Parses, identifies, translates; decides nothing.
//!
//! A request passes `door` (request id, CORS, guards, keys), then the route table, then one
//! handler in `routes/`. HTTP statuses are chosen in `error`, nowhere else.

mod access_log;
mod app;
mod auth;
mod body;
mod config;
mod connection;
mod cors;
mod digest;
mod door;
mod error;
mod extract;
mod finding;
mod idempotency;
mod json;
mod page;
mod phase;
mod query;
mod request_id;
mod routes;
mod serve;
mod site;
mod table;
mod upload;
mod utf8;

#[cfg(test)]
mod tests;

pub use config::{AuthConfig, ServerConfig};
#[doc(hidden)]
pub use routes::session::parses;
pub use serve::Server;
