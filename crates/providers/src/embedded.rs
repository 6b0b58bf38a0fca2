//! The static program that this build carries: spawner and agent in one.

/// An ELF file that needs nothing of the host.
pub(crate) static SPAWNER: &[u8] = include_bytes!(env!("STACYVM_SPAWNER"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_static() {
        assert_eq!(&SPAWNER[..4], b"\x7fELF");
        // Program headers: none of type PT_INTERP (3), or it would need the host's loader.
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([SPAWNER[at], SPAWNER[at + 1]]));
        let start = u64::from_le_bytes(SPAWNER[32..40].try_into().unwrap()) as usize;
        let (size, count) = (u16_at(54), u16_at(56));
        for n in 0..count {
            assert_ne!(u16_at(start + n * size), 3, "it asks for a loader");
        }
    }
}
