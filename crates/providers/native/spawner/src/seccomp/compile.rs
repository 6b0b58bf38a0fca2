//! From rules to a program for the kernel's filter machine.
//!
//! The kernel runs the filter for every system call, and once for each number when it is loaded, so
//! the depth counts: the numbers' runs with equal verdicts are the leaves of a balanced tree.

use std::collections::BTreeMap;

use libc::sock_filter;

use super::shrink::shrink;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// Fails with this error.
    Fail(i32),
    /// Depends on an argument.
    Ask(Question),
}

/// Looks at the lower half of one argument, or of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Allowed if none of these bits is set.
    NoneOf { argument: u32, bits: u32, error: i32 },
    /// Allowed if it is one of these.
    OneOf { argument: u32, values: &'static [u32], error: i32 },
    /// Allowed unless it is one of these.
    NotOneOf { argument: u32, values: &'static [u32], error: i32 },
    /// Allowed if it is one of these, or if it is `special` and the other is zero.
    OneOfOrWithZero { argument: u32, values: &'static [u32], special: u32, other: u32, error: i32 },
    /// Allowed if one of these two is zero, the first in both halves.
    EitherZero { wide: u32, narrow: u32, error: i32 },
}

pub(super) struct Rules {
    /// Verdicts by call number; for all others `unknown`.
    pub calls: BTreeMap<u32, Verdict>,
    pub unknown: Verdict,
    /// Numbers from here on belong to another convention, and fail with this.
    pub foreign: Option<(u32, i32)>,
    pub architecture: u32,
    /// For calls of other architectures.
    pub alien: i32,
}

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

pub(super) const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
pub(super) const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
pub(super) const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;

pub(super) fn compile(rules: &Rules) -> Vec<sock_filter> {
    let mut program = vec![
        op(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, rules.architecture, 1, 0),
        fail(rules.alien),
        op(LOAD, NUMBER),
    ];
    if let Some((first, error)) = rules.foreign {
        program.extend([branch(IF_AT_LEAST, first, 0, 1), fail(error)]);
    }
    program.extend(tree(&runs(rules)));
    shrink(&program)
}

/// First number and verdict of each run of equal ones, from zero on.
fn runs(rules: &Rules) -> Vec<(u32, Verdict)> {
    let mut runs: Vec<(u32, Verdict)> = vec![(0, rules.unknown)];
    let mut add = |from: u32, verdict: Verdict| match runs.last_mut() {
        Some(last) if last.0 == from => last.1 = verdict,
        _ => runs.push((from, verdict)),
    };
    for (&number, &verdict) in &rules.calls {
        add(number, verdict);
        add(number + 1, rules.unknown);
    }
    // A run that ended where an equal one begins.
    runs.dedup_by(|next, run| next.1 == run.1);
    runs
}

fn tree(runs: &[(u32, Verdict)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = runs {
        return leaf(*verdict);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let left = tree(low);
    let right = tree(high);
    let pivot = high[0].0;
    let mut program = match u8::try_from(left.len()) {
        Ok(over) => vec![branch(IF_AT_LEAST, pivot, over, 0)],
        // Conditional jumps reach 255 instructions, others further.
        Err(_) => vec![branch(IF_AT_LEAST, pivot, 0, 1), op(JUMP, left.len() as u32)],
    };
    program.extend(left);
    program.extend(right);
    program
}

fn leaf(verdict: Verdict) -> Vec<sock_filter> {
    match verdict {
        Verdict::Allow => vec![allow()],
        Verdict::Fail(error) => vec![fail(error)],
        Verdict::Ask(question) => ask(question),
    }
}

fn ask(question: Question) -> Vec<sock_filter> {
    match question {
        Question::NoneOf { argument, bits, error } => {
            vec![op(LOAD, low(argument)), branch(IF_ANY_BIT, bits, 1, 0), allow(), fail(error)]
        }
        Question::OneOf { argument, values, error } => {
            let mut program = vec![op(LOAD, low(argument))];
            for value in values {
                program.extend([branch(IF_EQUAL, *value, 0, 1), allow()]);
            }
            program.push(fail(error));
            program
        }
        Question::NotOneOf { argument, values, error } => {
            let mut program = vec![op(LOAD, low(argument))];
            for value in values {
                program.extend([branch(IF_EQUAL, *value, 0, 1), fail(error)]);
            }
            program.push(allow());
            program
        }
        Question::OneOfOrWithZero { argument, values, special, other, error } => {
            let mut program = ask(Question::OneOf { argument, values, error });
            program.pop();
            program.extend([
                branch(IF_EQUAL, special, 0, 3),
                op(LOAD, low(other)),
                branch(IF_EQUAL, 0, 0, 1),
                allow(),
                fail(error),
            ]);
            program
        }
        Question::EitherZero { wide, narrow, error } => vec![
            op(LOAD, low(wide)),
            branch(IF_EQUAL, 0, 0, 2),
            op(LOAD, high(wide)),
            branch(IF_EQUAL, 0, 2, 0),
            op(LOAD, low(narrow)),
            branch(IF_EQUAL, 0, 0, 1),
            allow(),
            fail(error),
        ],
    }
}

/// Where the halves of an argument lie in `struct seccomp_data`.
fn low(argument: u32) -> u32 {
    16 + argument * 8 + if cfg!(target_endian = "big") { 4 } else { 0 }
}

fn high(argument: u32) -> u32 {
    16 + argument * 8 + if cfg!(target_endian = "big") { 0 } else { 4 }
}

fn op(code: u32, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

fn branch(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

fn allow() -> sock_filter {
    op(RETURN, libc::SECCOMP_RET_ALLOW)
}

fn fail(error: i32) -> sock_filter {
    op(RETURN, libc::SECCOMP_RET_ERRNO | error as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does. `None`: it runs off its end.
    fn run(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> Option<u32> {
        let load = |at: u32| match at {
            NUMBER => number,
            ARCHITECTURE => arch,
            at => {
                let argument = args[(at as usize - 16) / 8];
                if at % 8 == 0 { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let i = program.get(at)?;
            at += 1;
            let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match u32::from(i.code) {
                LOAD => a = load(i.k),
                RETURN => return Some(i.k),
                JUMP => at += i.k as usize,
                IF_EQUAL => at += jump(a == i.k),
                IF_AT_LEAST => at += jump(a >= i.k),
                IF_ANY_BIT => at += jump(a & i.k != 0),
                other => panic!("instruction {other}"),
            }
        }
    }

    const ALLOW: Option<u32> = Some(libc::SECCOMP_RET_ALLOW);

    fn failure(error: i32) -> Option<u32> {
        Some(libc::SECCOMP_RET_ERRNO | error as u32)
    }

    #[test]
    fn every_number_gets_its_own_verdict() {
        // Sparse and dense, so that runs of all lengths and both kinds of jumps occur.
        let calls: BTreeMap<u32, Verdict> = (0..2000u32)
            .filter(|n| n % 7 != 3 && n % 11 != 5)
            .map(|n| {
                (n, if n % 5 == 0 { Verdict::Fail(n as i32 % 90 + 1) } else { Verdict::Allow })
            })
            .collect();
        let rules = Rules {
            calls: calls.clone(),
            unknown: Verdict::Fail(38),
            foreign: Some((5000, 1)),
            architecture: 9,
            alien: 2,
        };
        let program = compile(&rules);
        assert!(program.iter().any(|i| u32::from(i.code) == JUMP), "no long jump was tried");
        for number in 0..6000 {
            let expected = match calls.get(&number) {
                _ if number >= 5000 => failure(1),
                Some(Verdict::Allow) => ALLOW,
                Some(Verdict::Fail(error)) => failure(*error),
                Some(Verdict::Ask(_)) => unreachable!("none was made"),
                None => failure(38),
            };
            assert_eq!(run(&program, 9, number, [0; 6]), expected, "call {number}");
        }
        assert_eq!(run(&program, 8, 1, [0; 6]), failure(2));
    }

    #[test]
    fn arguments_are_asked() {
        let answer = |question, args: &[u64]| {
            let mut all = [u64::MAX; 6];
            all[..args.len()].copy_from_slice(args);
            let calls = BTreeMap::from([(1, Verdict::Ask(question))]);
            let unknown = Verdict::Fail(38);
            let rules = Rules { calls, unknown, foreign: None, architecture: 9, alien: 2 };
            run(&compile(&rules), 9, 1, all)
        };
        let bits = Question::NoneOf { argument: 1, bits: 0x30, error: 7 };
        assert_eq!(answer(bits, &[0xff, 0xf]), ALLOW);
        assert_eq!(answer(bits, &[0, 0x10]), failure(7));
        assert_eq!(answer(bits, &[0, 0x21]), failure(7));
        let values = Question::OneOf { argument: 0, values: &[1, 2], error: 7 };
        assert_eq!(answer(values, &[2]), ALLOW);
        assert_eq!(answer(values, &[3]), failure(7));
        let others = Question::NotOneOf { argument: 1, values: &[1, 2], error: 7 };
        assert_eq!(answer(others, &[1, 3]), ALLOW);
        assert_eq!(answer(others, &[3, 2]), failure(7));
        assert_eq!(answer(others, &[3, 1 | 1 << 32]), failure(7));
        let mixed = Question::OneOfOrWithZero {
            argument: 0,
            values: &[1, 2],
            special: 16,
            other: 2,
            error: 97,
        };
        assert_eq!(answer(mixed, &[1, 0, 5]), ALLOW);
        assert_eq!(answer(mixed, &[16, 0, 0]), ALLOW);
        assert_eq!(answer(mixed, &[16, 0, 9]), failure(97));
        assert_eq!(answer(mixed, &[17, 0, 0]), failure(97));
        let either = Question::EitherZero { wide: 2, narrow: 0, error: 1 };
        assert_eq!(answer(either, &[5, 0, 0]), ALLOW);
        assert_eq!(answer(either, &[0, 0, 1 << 40]), ALLOW);
        assert_eq!(answer(either, &[5, 0, 1 << 40]), failure(1));
        assert_eq!(answer(either, &[5, 0, 8]), failure(1));
    }
}
