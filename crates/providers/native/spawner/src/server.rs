//! The loop: orders in, replies out, nothing that waits.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use protocol::spawner::{Order, Reply, Setup, SpawnSpec};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use types::clock::{Clock, SystemClock};

use crate::birth::{Birth, Wanted};
use crate::cgroups::Cgroups;
use crate::channel::{Channel, Received};
use crate::dynmods::Dynmods;
use crate::inside;
use crate::machine::{Machine, facts};
use crate::prepared::Prepared;
use crate::releases::{Done, Releases};
use crate::slots::{Shortage, Slots};
use crate::stage;
use crate::step::{Failed, Outcome, Step};
use crate::sys;

/// Events taken from the kernel at once.
const EVENTS: usize = 64;

/// Nanoseconds without an order after which the pool is filled up: longer than the pauses of a
/// client that makes one sandbox after the other.
const IDLE: u64 = 20_000_000;

/// What an event is about: kind in the upper half, number below.
enum Token {
    Channel,
    Children,
    Birth(u32),
}

impl Token {
    fn number(&self) -> u64 {
        match self {
            Self::Channel => 0,
            Self::Children => 1,
            Self::Birth(key) => 2 << 32 | u64::from(*key),
        }
    }

    fn of(number: u64) -> Self {
        let low = number as u32;
        match number >> 32 {
            2 => Self::Birth(low),
            _ if low == 0 => Self::Channel,
            _ => Self::Children,
        }
    }
}

struct Server {
    channel: Channel,
    epoll: OwnedFd,
    children: OwnedFd,
    machine: Machine,
    cgroups: Cgroups,
    slots: Slots,
    /// Waiting for a slot, in the order they came.
    waiting: VecDeque<Wanted>,
    births: BTreeMap<u32, Birth>,
    next_birth: u32,
    releases: Releases,
    /// When the last order came.
    last_order: u64,
    closed: bool,
}

pub(crate) fn run(mut channel: Channel) -> ExitCode {
    let setup = match channel.first::<Setup>() {
        Received::Message(message, _) => message.body,
        Received::Nothing | Received::Closed => return ExitCode::from(2),
    };
    let facts = facts(&setup);
    let _dynmods = Dynmods::favor(&setup.cgroups);
    match prepare(&setup) {
        Ok((machine, cgroups)) => match Server::new(channel, &setup, machine, cgroups) {
            Ok(mut server) => {
                server.channel.reply(0, Reply::Ready { facts });
                server.serve();
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::FAILURE,
        },
        Err(failed) => {
            channel.reply(0, refusal(failed));
            ExitCode::FAILURE
        }
    }
}

/// Opens what needs the host's paths, then leaves them behind.
fn prepare(setup: &Setup) -> Outcome<(Machine, Cgroups)> {
    rustix::process::umask(rustix::fs::Mode::empty());
    let cgroups = Cgroups::open(&setup.cgroups, setup.unconfined)?;
    if !setup.unconfined {
        stage::enter(setup, setup.uid_ranges.is_some())?;
    }
    Ok((Machine::look(setup), cgroups))
}

fn refusal(failed: Failed) -> Reply {
    Reply::Failed { stage: failed.step.into(), errno: failed.errno }
}

impl Server {
    fn new(
        channel: Channel,
        setup: &Setup,
        machine: Machine,
        cgroups: Cgroups,
    ) -> Result<Self, Errno> {
        let server = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            children: sys::child_signals()?,
            slots: Slots::new(&machine, setup.pool, &setup.used_slots),
            channel,
            machine,
            cgroups,
            waiting: VecDeque::new(),
            births: BTreeMap::new(),
            next_birth: 0,
            releases: Releases::default(),
            last_order: 0,
            closed: false,
        };
        watch(&server.epoll, &server.channel, &Token::Channel)?;
        watch(&server.epoll, &server.children, &Token::Children)?;
        Ok(server)
    }

    /// Until the other end closes.
    fn serve(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.closed {
            let idle = self.fill_pool_if_due();
            let due = self.releases.next();
            let timeout = idle.into_iter().chain(due).min().map(|nanos| Timespec {
                tv_sec: (nanos / 1_000_000_000) as i64,
                tv_nsec: (nanos % 1_000_000_000) as i64,
            });
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            for event in &events {
                match Token::of(event.data.u64()) {
                    Token::Channel => self.on_orders(),
                    Token::Children => self.reap(),
                    Token::Birth(key) => self.on_report(key),
                }
            }
            for done in self.releases.go_on(&self.cgroups) {
                self.finish(done);
            }
        }
        self.slots.end();
    }

    /// What nobody waits for yet is made when nothing else is to be done. Returns the nanoseconds
    /// after which to look again.
    fn fill_pool_if_due(&mut self) -> Option<u64> {
        match self.slots.shortage(self.waiting.len()) {
            Shortage::None => return None,
            Shortage::Urgent if self.births.is_empty() || !self.waiting.is_empty() => {}
            Shortage::Urgent | Shortage::Some => {
                let quiet = now().saturating_sub(self.last_order);
                if quiet < IDLE {
                    return Some(IDLE - quiet);
                }
            }
        }
        self.fill_pool().then_some(0)
    }

    fn on_orders(&mut self) {
        loop {
            match self.channel.next::<Order>() {
                Received::Message(message, fds) => self.obey(message.n, message.body, fds),
                Received::Nothing => return,
                Received::Closed => return self.closed = true,
            }
        }
    }

    fn obey(&mut self, n: u64, order: Order, fds: Vec<OwnedFd>) {
        self.last_order = now();
        match order {
            Order::Spawn(spec) => self.spawn(n, spec, fds),
            Order::Release { id, slot } => self.release(n, id, slot, Reply::Released),
            Order::Adopt { id: _, slot } => {
                slot.into_iter().for_each(|number| self.slots.adopt(number));
                self.channel.reply(n, Reply::Adopted);
            }
        }
    }

    fn spawn(&mut self, n: u64, spec: Box<SpawnSpec>, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let Some(listener) = fds.next() else {
            let failed = Failed { step: "find its socket", errno: libc::EBADF };
            return self.channel.reply(n, refusal(failed));
        };
        let tied = fds.next();
        if spec.dies_with_fd != tied.is_some() {
            let failed = Failed { step: "find what it is tied to", errno: libc::EBADF };
            return self.channel.reply(n, refusal(failed));
        }
        self.waiting.push_back(Wanted { n, order: inside::Order { spec, listener, tied } });
        self.start_waiting();
    }

    /// Starts those for whom there is a slot.
    fn start_waiting(&mut self) {
        while let Some(first) = self.waiting.front() {
            let prepared = match self.machine.unconfined {
                true => None,
                false => match self.slots.take(first.order.spec.slot) {
                    Some(prepared) => Some(prepared),
                    None => return,
                },
            };
            if let Some(wanted) = self.waiting.pop_front() {
                self.start(wanted, prepared);
            }
        }
    }

    fn start(&mut self, wanted: Wanted, prepared: Option<Prepared>) {
        let (n, id) = (wanted.n, wanted.order.spec.id.clone());
        let number = prepared.as_ref().map(|slot| slot.number);
        let birth = Birth::start(wanted, prepared, &self.machine, &self.cgroups);
        let key = self.next_birth;
        self.next_birth = self.next_birth.wrapping_add(1);
        let watched = birth.and_then(|birth| {
            let watched = watch(&self.epoll, &birth, &Token::Birth(key)).step("watch it");
            watched.inspect_err(|_| birth.kill()).map(|()| birth)
        });
        match watched {
            Ok(birth) => drop(self.births.insert(key, birth)),
            Err(failed) => self.release(n, id, number, refusal(failed)),
        }
    }

    fn on_report(&mut self, key: u32) {
        let Some(birth) = self.births.remove(&key) else { return };
        match birth.report() {
            Ok(made) => self.channel.reply(birth.n, Reply::Spawned { made }),
            Err((stage, errno)) => {
                birth.kill();
                let reply = Reply::Failed { stage, errno };
                self.release(birth.n, birth.id.clone(), birth.slot, reply);
            }
        }
    }

    fn release(&mut self, n: u64, id: String, slot: Option<u32>, reply: Reply) {
        if let Some(done) = self.releases.start((n, id, slot), reply, &self.cgroups) {
            self.finish(done);
        }
    }

    fn finish(&mut self, done: Done) {
        if let Some(number) = done.slot {
            self.slots.free(number);
        }
        self.channel.reply(done.n, done.reply);
    }

    /// Makes one more slot; whether there is one more. Those who wait for what can't come are told.
    fn fill_pool(&mut self) -> bool {
        let wanted = self.waiting.front().and_then(|w| w.order.spec.slot);
        match self.slots.add(wanted, &self.machine) {
            Ok(true) => {
                self.start_waiting();
                return true;
            }
            Ok(false) if self.slots.any_ready() => {} // they want a certain one
            Ok(false) => self
                .refuse_all(Failed { step: "find a free range of user ids", errno: libc::EUSERS }),
            Err(failed) => self.refuse_all(failed),
        }
        false
    }

    fn refuse_all(&mut self, failed: Failed) {
        for wanted in std::mem::take(&mut self.waiting) {
            self.channel.reply(wanted.n, refusal(failed));
        }
    }

    fn reap(&mut self) {
        let _ = rustix::io::read(&self.children, &mut [0; 1024]); // only rings; waitpid tells
        while sys::reap().is_some() {}
    }
}

fn now() -> u64 {
    SystemClock.boot().nanos()
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, token: &Token) -> Result<(), Errno> {
    epoll::add(epoll, fd, EventData::new_u64(token.number()), EventFlags::IN)
}
