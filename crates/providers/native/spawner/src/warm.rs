//! Pages that a prepared process will touch, faulted in before anybody waits for it.
//!
//! A fork inherits no mapping of the program's text and only promises of its data: without this, a
//! sandbox's first milliseconds are page faults.

use std::ops::Range;

use crate::sys;

/// Bytes at the top of the stack that the way to the agent's loop takes.
const STACK: usize = 32 << 10;

/// What to fault in; the same in every fork.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    read: Vec<Range<usize>>,
    write: Vec<Range<usize>>,
}

impl Warm {
    /// Looks at the memory map of this process; without one there is nothing to be done.
    pub(crate) fn look() -> Self {
        std::fs::read_to_string("/proc/self/maps").map_or_else(|_| Self::default(), |t| parse(&t))
    }

    pub(crate) fn fault_in(&self) {
        self.read.iter().for_each(|range| sys::populate(range, false));
        self.write.iter().for_each(|range| sys::populate(range, true));
    }
}

/// The program's own segments, which come first, and the top of the stack.
fn parse(maps: &str) -> Warm {
    let mut warm = Warm::default();
    let mut program = true;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(span), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let name = fields.nth(3);
        let Some((from, to)) = span.split_once('-') else { continue };
        let address = |text| usize::from_str_radix(text, 16).ok();
        let (Some(from), Some(to)) = (address(from), address(to)) else { continue };
        program &= name != Some("[heap]");
        if name == Some("[stack]") {
            warm.write.push(to.saturating_sub(STACK).max(from)..to);
        } else if program && rights.starts_with("rw") {
            warm.write.push(from..to);
        } else if program && rights.starts_with('r') {
            warm.read.push(from..to);
        }
    }
    warm
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_the_stack_are_found() {
        let maps = "\
            00200000-00265000 r--p 00000000 00:01 7 /memfd:spawner (deleted)\n\
            00265000-003d7000 r-xp 00064000 00:01 7 /memfd:spawner (deleted)\n\
            003dc000-003e0000 rw-p 001d9000 00:01 7 /memfd:spawner (deleted)\n\
            003e0000-003e6000 rw-p 00000000 00:00 0 \n\
            01000000-01040000 rw-p 00000000 00:00 0                          [heap]\n\
            7f0000000000-7f0000021000 rw-p 00000000 00:00 0 \n\
            7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                  [stack]\n";
        let warm = parse(maps);
        assert_eq!(warm.read, [0x200000..0x265000, 0x265000..0x3d7000]);
        let stack = 0x7ffc_0002_1000 - STACK..0x7ffc_0002_1000;
        assert_eq!(warm.write, [0x3dc000..0x3e0000, 0x3e0000..0x3e6000, stack]);
    }
}
