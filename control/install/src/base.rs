//! The base of releases: a directory or a URL.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ployz_api::{Code, Failure};

use crate::files::failed;
use crate::http;

/// A directory, or a web server's: `<base>/<version>/SHA256SUMS` and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// On this machine.
    Directory(PathBuf),
    /// `http://` or `https://`, without a slash at the end.
    Url(String),
}

/// An answer and, where the server gives it, its length in bytes.
type Opened = (Box<dyn Read>, Option<u64>);

impl Base {
    /// Reads a small file, of at most so many bytes, which has to be text.
    pub(crate) fn read(&self, name: &str, len_max: u64) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        self.copy(name, len_max, &mut bytes, &mut |_, _| ())?;
        String::from_utf8(bytes).map_err(|_| self.failed(name, "the file is not UTF-8 text"))
    }

    /// Copies a file of at most so many bytes, and says how far it is: bytes copied, and bytes in all if that is known.
    pub(crate) fn copy(
        &self,
        name: &str,
        len_max: u64,
        to: &mut dyn Write,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Failure> {
        const CHUNK_LEN: usize = 64 * 1024;
        let (mut from, len) = self.open(name)?;
        let mut chunk = vec![0; CHUNK_LEN];
        let mut copied = 0;
        loop {
            progress(copied, len);
            let read = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(name, &error.to_string())),
            };
            copied += read as u64;
            if copied > len_max {
                return Err(self.failed(name, &format!("the file is larger than {len_max} bytes")));
            }
            let kept = format!("the copy of {}", self.location(name));
            to.write_all(&chunk[..read])
                .map_err(failed(Path::new(&kept)))?;
        }
        match len {
            Some(len) if len != copied => {
                let cause = format!("the transfer ended after {copied} of {len} bytes");
                Err(self.failed(name, &cause))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn open(&self, name: &str) -> Result<Opened, Failure> {
        match self {
            Self::Directory(directory) => {
                let file = File::open(directory.join(name));
                let opened = file.and_then(|file| Ok((file.metadata()?.len(), file)));
                let (len, file) = opened.map_err(|error| self.failed(name, &error.to_string()))?;
                Ok((Box::new(file), Some(len)))
            }
            Self::Url(_) => {
                let got = http::get(&self.location(name));
                let (body, len) = got.map_err(|error| self.failed(name, &error.to_string()))?;
                Ok((Box::new(body), len))
            }
        }
    }

    fn failed(&self, name: &str, cause: &str) -> Failure {
        Failure::new(
            Code::InstallFailed,
            format!("{}: {cause}", self.location(name)),
        )
    }

    fn location(&self, name: &str) -> String {
        format!("{self}/{name}")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(url),
        }
    }
}

impl FromStr for Base {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Self::Url(text.trim_end_matches('/').to_owned()));
        }
        if text.is_empty() || text.contains("://") {
            let message = format!("{text:?} is not a release base");
            return Err(Failure::new(Code::InvalidArgument, message)
                .hint("give a directory, or a URL that begins with https:// or http://"));
        }
        Ok(Self::Directory(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_directory_or_a_web_server() {
        let base = |text: &str| text.parse::<Base>();
        assert_eq!(base("/r"), Ok(Base::Directory("/r".into())));
        let url = "https://example.org/ployz";
        assert_eq!(base(&format!("{url}/")), Ok(Base::Url(url.to_owned())));
        for bad in ["", "ftp://example.org", "file:///r"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
