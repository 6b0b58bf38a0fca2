//! Makes a program smaller without changing what it says: the kernel translates it anew for every
//! sandbox, instruction by instruction.

use libc::sock_filter;

use super::compile::{JUMP, LOAD, RETURN};

/// The furthest that a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// Sends conditional jumps to the last return of the same value that they reach, instead of each
/// to one of its own, and leaves out what nothing reaches any more.
pub(super) fn shrink(program: &[sock_filter]) -> Vec<sock_filter> {
    let mut edges: Vec<[usize; 2]> = Vec::with_capacity(program.len());
    for (at, op) in program.iter().enumerate() {
        let next = at + 1;
        edges.push(match u32::from(op.code) {
            LOAD | RETURN => [next, next],
            JUMP => [next + op.k as usize; 2],
            _ => [op.jt, op.jf].map(|over| redirect(program, at, next + usize::from(over))),
        });
    }
    let reached = reached(program, &edges);
    // Where each instruction lies once the others are gone.
    let mut places = Vec::with_capacity(program.len());
    let mut place = 0;
    for reached in &reached {
        places.push(place);
        place += usize::from(*reached);
    }
    let kept = (0..program.len()).filter(|at| reached[*at]);
    kept.map(|at| moved(program[at], edges[at].map(|to| places.get(to).copied()), places[at]))
        .collect()
}

/// The last return within reach that says what the one at `to` says.
fn redirect(program: &[sock_filter], at: usize, to: usize) -> usize {
    let is_return = |op: &sock_filter| u32::from(op.code) == RETURN;
    let Some(target) = program.get(to).filter(|op| is_return(op)) else { return to };
    let end = program.len().min(at + 1 + REACH + 1);
    (to..end).rev().find(|n| is_return(&program[*n]) && program[*n].k == target.k).unwrap_or(to)
}

fn reached(program: &[sock_filter], edges: &[[usize; 2]]) -> Vec<bool> {
    let mut reached = vec![false; program.len()];
    let mut todo = vec![0];
    while let Some(at) = todo.pop() {
        if at < program.len() && !std::mem::replace(&mut reached[at], true) {
            let ends = u32::from(program[at].code) == RETURN;
            todo.extend(edges[at].into_iter().filter(|_| !ends));
        }
    }
    reached
}

/// The instruction with its jumps, which only became shorter, from its new place.
fn moved(mut op: sock_filter, to: [Option<usize>; 2], place: usize) -> sock_filter {
    let over = to.map(|to| to.map_or(0, |to| to - place - 1));
    match u32::from(op.code) {
        LOAD | RETURN => {}
        JUMP => op.k = over[0] as u32,
        _ => (op.jt, op.jf) = (over[0] as u8, over[1] as u8),
    }
    op
}
