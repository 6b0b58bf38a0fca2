//! The output of a command that belongs to no call, and who is looking at it.

use protocol::agent::{Body, Channel, ExecDone, Kind, MAX_PAYLOAD};

use super::{Ring, Source};
use crate::connection::Conn;
use crate::error::Outcome;

/// How long one who holds a command may take nothing while others look on.
const PATIENCE_NANOS: u64 = 2_000_000_000;
/// Bytes of a note that something was lost.
const NOTE: u64 = 8;

/// Outlives its exec, for those who come later.
pub(crate) struct Log {
    pub id: String,
    pub ring: Ring,
    pub viewers: Vec<Viewer>,
    /// How the command ended, once it has.
    pub end: Option<Outcome<ExecDone>>,
    /// Of a command that was started detached, and not one whose connection was lost.
    kept: bool,
    /// The call that started the command and is to be told that it runs.
    starter: Option<Source>,
    /// The call whose input is the command's.
    pub writer: Option<Source>,
    /// Since when nobody who holds the command has taken anything, though there was something.
    stalled_since: Option<u64>,
    /// The command does not wait for them.
    released: bool,
}

/// A call that looks at a log.
pub(crate) struct Viewer {
    pub conn: u32,
    pub call: u32,
    /// The offset of what it gets next.
    pub pos: u64,
    /// Where it ends, unless it follows.
    pub until: Option<u64>,
    pub holds: bool,
    pub quiet: bool,
}

/// What became of a viewer.
#[derive(PartialEq, Eq)]
enum Served {
    Waits,
    Over,
}

impl Log {
    pub(crate) fn new(id: String, limit: usize) -> Self {
        let ring = Ring::new(limit);
        Self {
            id,
            ring,
            viewers: Vec::new(),
            end: None,
            kept: false,
            starter: None,
            writer: None,
            stalled_since: None,
            released: false,
        }
    }

    /// The call that starts the command looks at it from the beginning: at all of it, with
    /// `watch`, else only whether it starts.
    pub(crate) fn start_with(&mut self, conn: u32, call: u32, watch: bool) {
        self.kept = true;
        self.starter = Some((conn, call));
        self.writer = watch.then_some((conn, call));
        let (pos, until) = (0, None);
        self.viewers.push(Viewer { conn, call, pos, until, holds: watch, quiet: !watch });
    }

    /// Whether it is kept after the command's end.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    /// The command runs. Says whom to tell, and whether that call goes on.
    pub(crate) fn started(&mut self) -> Option<(Source, bool)> {
        let (conn, call) = self.starter.take()?;
        let stays = self.writer.is_some();
        if !stays {
            self.forget_viewer(conn, call);
        }
        Some(((conn, call), stays))
    }

    /// Whether more output is to be taken in: always, unless somebody holds the command and has not
    /// kept up. One who holds it and takes nothing for long lets go while somebody else looks on.
    pub(crate) fn takes(&mut self, now: u64) -> bool {
        let keeps_up = |v: &Viewer| !v.quiet && self.ring.is_near(v.pos);
        if !self.viewers.iter().any(|v| v.holds) {
            return true;
        }
        if self.viewers.iter().any(|v| v.holds && keeps_up(v)) {
            (self.stalled_since, self.released) = (None, false);
            return true;
        }
        self.stalled_since.get_or_insert(now);
        self.released && self.viewers.iter().any(keeps_up)
    }

    /// When whoever holds the command is to let go, unless he moves until then.
    pub(crate) fn lets_go_at(&self) -> Option<u64> {
        let others = self.viewers.iter().any(|v| !v.holds && !v.quiet);
        self.stalled_since.filter(|_| others && !self.released).map(|at| at + PATIENCE_NANOS)
    }

    pub(crate) fn let_go(&mut self) {
        self.released = true;
    }

    /// Sends to each viewer what it has credit and room for, and ends those that are through.
    pub(crate) fn serve(&mut self, conns: &mut std::collections::BTreeMap<u32, Conn>) {
        let held = |viewers: &[Viewer]| viewers.iter().filter(|v| v.holds).map(|v| v.pos).sum();
        let before: u64 = held(&self.viewers);
        self.serve_each(conns);
        if held(&self.viewers) > before {
            self.stalled_since = None;
        }
    }

    fn serve_each(&mut self, conns: &mut std::collections::BTreeMap<u32, Conn>) {
        let Self { ring, viewers, end, starter, .. } = self;
        // That it has started is told before all else.
        if starter.is_some() && end.is_none() {
            return;
        }
        viewers.retain_mut(|viewer| match conns.get_mut(&viewer.conn) {
            Some(conn) => viewer.serve(ring, end.as_ref(), conn) == Served::Waits,
            None => false,
        });
    }

    pub(crate) fn forget_viewer(&mut self, conn: u32, call: u32) {
        self.viewers.retain(|v| (v.conn, v.call) != (conn, call));
    }
}

impl Viewer {
    fn serve(&mut self, ring: &Ring, end: Option<&Outcome<ExecDone>>, conn: &mut Conn) -> Served {
        while !self.quiet {
            let Some(state) = conn.calls.get_mut(&self.call) else { return Served::Over };
            let goal = self.until.map_or(ring.total(), |until| until.min(ring.total()));
            if self.pos >= goal {
                break;
            }
            if !conn.out.has_room() {
                conn.starved = true;
                return Served::Waits;
            }
            if self.pos < ring.first() {
                if state.credit < NOTE {
                    return Served::Waits;
                }
                state.credit -= NOTE;
                let lost = (ring.first() - self.pos).to_le_bytes();
                conn.out.frame(Kind::Data, Channel::Gap, self.call, &lost);
                self.pos = ring.first();
                continue;
            }
            let credit = usize::try_from(state.credit).unwrap_or(usize::MAX);
            let left = usize::try_from(goal - self.pos).unwrap_or(usize::MAX);
            let max = credit.min(left).min(MAX_PAYLOAD);
            let Some((channel, piece)) = ring.piece(self.pos, max).filter(|(_, p)| !p.is_empty())
            else {
                return Served::Waits;
            };
            conn.out.frame(Kind::Data, channel, self.call, piece);
            state.credit -= piece.len() as u64;
            self.pos += piece.len() as u64;
        }
        let seen = self.quiet || self.pos >= ring.total();
        let outcome = match end {
            Some(end) if seen => end.clone().map(Body::Exec),
            Some(_) | None if self.until.is_some() => Ok(Body::Paused),
            Some(_) | None => return Served::Waits,
        };
        conn.end(self.call, outcome);
        Served::Over
    }
}
