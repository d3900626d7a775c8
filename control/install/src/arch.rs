//! The architecture of a program.

use std::fmt;
use std::str::FromStr;

use ployz_api::{Code, Failure};

use crate::version::Version;

/// An architecture that there are artifacts for, by the kernel's name for it (`uname -m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64 bits of Intel and AMD.
    X86_64,
    /// 64 bits of ARM.
    Aarch64,
}

impl Arch {
    /// The architecture of this program.
    ///
    /// # Errors
    ///
    /// `UNSUPPORTED` for any other.
    pub fn here() -> Result<Self, Failure> {
        std::env::consts::ARCH.parse()
    }

    /// The name of a version's artifact.
    #[must_use]
    pub fn artifact(self, version: &Version) -> String {
        format!("ployz-{version}-{self}-linux.tar.gz")
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

impl FromStr for Arch {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        match name {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => {
                let message = format!(
                    "unsupported architecture {other}: ployz is built for x86_64 and aarch64"
                );
                Err(Failure::new(Code::Unsupported, message))
            }
        }
    }
}
