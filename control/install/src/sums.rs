//! `SHA256SUMS`, as `sha256sum` writes it.

use ployz_api::{Code, Failure};
use sha2::{Digest as _, Sha256};

/// A digest of a file.
pub(crate) type Sum = [u8; 32];

/// The digest that the list has for a file.
pub(crate) fn find(list: &str, file: &str) -> Result<Sum, Failure> {
    let failed =
        |cause: &str| Failure::new(Code::InstallFailed, format!("SHA256SUMS {cause} {file}"));
    let mut found = list.lines().filter_map(|line| {
        let (sum, name) = line.split_once(char::is_whitespace)?;
        // An asterisk says that it was read as binary, which makes no difference here.
        (name.trim_start().trim_start_matches('*') == file).then_some(sum)
    });
    let Some(text) = found.next() else {
        return Err(
            failed("has no entry for").hint("this version has no artifact for this architecture")
        );
    };
    if found.next().is_some() {
        return Err(failed("has more than one entry for"));
    }
    let mut sum = Sum::default();
    hex::decode_to_slice(text, &mut sum).map_err(|_| failed("has no valid SHA-256 for"))?;
    Ok(sum)
}

/// The digest of what is written through it.
#[derive(Debug)]
pub(crate) struct Summing<W> {
    inner: W,
    digest: Sha256,
}

impl<W> Summing<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            digest: Sha256::new(),
        }
    }

    /// The writer, and the digest of what went through.
    pub(crate) fn finish(self) -> (W, Sum) {
        (self.inner, self.digest.finalize().into())
    }
}

impl<W: std::io::Write> std::io::Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_line() {
        let sum = "ab".repeat(32);
        let list = format!("{sum}  a\n{sum} *b\n{sum}  c\n{sum}  c\nxy  d\n");
        assert_eq!(find(&list, "a"), Ok([0xab; 32]));
        assert_eq!(find(&list, "b"), Ok([0xab; 32]));
        for file in ["c", "d", "e", ""] {
            assert!(find(&list, file).is_err(), "{file}");
        }
    }
}
