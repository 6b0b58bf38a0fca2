//! The agent protocol: what a server and the program inside a sandbox say to each other.
//!
//! A connection is a byte stream that carries [`Frame`]s. Both ends first send a [`Hello`]. Then
//! the server opens *calls*, each with a number of its own; many run at once. A call is one
//! `Request`, any number of `Data`, `Eof`, `Credit` and `Event` frames with its number, and one
//! `End` from the agent. A `Cancel` asks the agent to give the call up; the `End` still comes.
//!
//! **Flow.** Each direction of a call's data has a credit window of [`WINDOW`] bytes, counted over
//! all its channels; the receiver grants more with `Credit` as it consumes. A sender without credit
//! waits, and only that call waits.
//!
//! **Loss.** A connection that ends without `Cancel` cancels nothing: commands run on to their own
//! deadlines, and their output drains into bounded rings.
//!
//! **Versions.** Control payloads are JSON: unknown keys are ignored, absent ones have defaults, an
//! unknown request is answered with code `unsupported`, and what an agent can do is named in
//! [`Hello::capabilities`]. The server has to understand agents of older releases, since running
//! sandboxes outlive an upgrade.

mod frame;
mod message;
mod tree;

pub use frame::{
    Channel, Decoder, Frame, FrameError, HEADER_LEN, Kind, MAX_PAYLOAD, WINDOW, encode_header,
};
pub use message::{
    AgentError, AgentErrorCode, Body, End, Event, ExecDone, ExecInfo, ExecSpec, FileEntry, Hello,
    Limits, PROTOCOL_VERSION, ReadRange, Request, Status, TtySize, capability,
};
pub use tree::{TREE_HEADER, TREE_PATH, TreeEntry, TreeError, TreeKind, TreePart, TreeReader};
