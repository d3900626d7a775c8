//! The networks that this operator knows: a TOML file of mode 0600, written whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ployz_api::{Code, Context, Credential, Failure, Name};
use serde::{Deserialize, Serialize};

/// The word for the daemon of this host, which needs no context.
pub(crate) const LOCAL: &str = "local";

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Which one is used when none is named.
    pub(crate) current: Option<Name>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<Name, Credential>,
}

impl Contexts {
    /// Reads the file; one that is not there knows no network.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let refused = |cause: String| {
            Failure::new(
                Code::InvalidArgument,
                format!("{}: {cause}", path.display()),
            )
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => zeroize::Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(refused(error.to_string())),
        };
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.mode());
        if mode & 0o077 != 0 {
            return Err(refused(
                "the file contains secret keys and other users can read it".to_owned(),
            )
            .hint(format!("chmod 600 {}", path.display())));
        }
        toml::from_str(&text).map_err(|error| refused(error.message().to_owned()))
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Code::Internal, format!("{}: {error}", path.display()))
        };
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        let text = zeroize::Zeroizing::new(text);
        replace(path, text.as_bytes()).map_err(|error| failed(&error))
    }

    /// The credential of one of them.
    pub(crate) fn take(mut self, name: &Name) -> Result<Credential, Failure> {
        self.contexts.remove(name).ok_or_else(|| unknown(name))
    }

    /// Puts another one in; the first one becomes the current one.
    pub(crate) fn add(&mut self, context: Context) -> Result<(), Failure> {
        let Context { name, credential } = context;
        self.refuse_taken(&name)?;
        if self.contexts.is_empty() {
            self.current = Some(name.clone());
        }
        self.contexts.insert(name, credential);
        Ok(())
    }

    pub(crate) fn select(&mut self, name: &Name) -> Result<(), Failure> {
        self.current = match name.as_str() {
            LOCAL => None,
            _ if self.contexts.contains_key(name) => Some(name.clone()),
            _ => return Err(unknown(name)),
        };
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Name, to: Name) -> Result<(), Failure> {
        if !self.contexts.contains_key(from) {
            return Err(unknown(from));
        }
        self.refuse_taken(&to)?;
        if let Some(credential) = self.contexts.remove(from) {
            self.contexts.insert(to.clone(), credential);
        }
        if self.current.as_ref() == Some(from) {
            self.current = Some(to);
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &Name) -> Result<(), Failure> {
        self.contexts.remove(name).ok_or_else(|| unknown(name))?;
        if self.current.as_ref() == Some(name) {
            self.current = None;
        }
        Ok(())
    }

    fn refuse_taken(&self, name: &Name) -> Result<(), Failure> {
        let (message, hint) = if name.as_str() == LOCAL {
            (
                format!("the name {LOCAL} is reserved for the daemon of this host"),
                "ployzctl context import --name <another>".to_owned(),
            )
        } else if self.contexts.contains_key(name) {
            (
                format!("a context named {name} already exists"),
                format!("ployzctl context rm {name}, or choose another --name"),
            )
        } else {
            return Ok(());
        };
        Err(Failure::new(Code::Conflict, message).hint(hint))
    }
}

/// `given`, or where configurations are kept.
pub(crate) fn path(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let absolute = |key: &str| {
        let directory = PathBuf::from(std::env::var_os(key)?);
        directory.is_absolute().then_some(directory)
    };
    given
        .map(Path::to_owned)
        .or_else(|| Some(absolute("XDG_CONFIG_HOME")?.join("ployz/config.toml")))
        .or_else(|| Some(absolute("HOME")?.join(".config/ployz/config.toml")))
        .ok_or_else(|| {
            let message =
                "neither HOME nor XDG_CONFIG_HOME is set, so the configuration file is unknown";
            Failure::new(Code::InvalidArgument, message).hint("give its path with --config")
        })
}

fn unknown(name: &Name) -> Failure {
    let message = format!("no context is named {name}");
    Failure::new(Code::InvalidArgument, message).hint("ployzctl context ls")
}

/// Writes beside the file, then renames: a reader finds the old file or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    NewFile::create(beside.clone())?.write(bytes)?;
    fs::rename(&beside, path)
}

/// A new file that only its owner can read, removed again unless it is written whole.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
    is_whole: bool,
}

impl NewFile {
    pub(crate) fn create(path: PathBuf) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            path,
            file,
            is_whole: false,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_whole {
            let _already_gone = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use ployz_api::Secret;

    use super::*;

    fn context(name: &str) -> Context {
        Context {
            name: name.parse().unwrap(),
            credential: Credential {
                endpoints: vec!["192.0.2.1:51821".parse().unwrap()],
                network: "n".to_owned(),
                ca_pem: "a\nb\n".to_owned(),
                certificate_pem: String::new(),
                key_pem: Secret::new("key".to_owned()),
            },
        }
    }

    #[test]
    fn what_is_written_is_private_and_reads_back() {
        let directory = std::env::temp_dir().join(format!("ployz-contexts-{}", std::process::id()));
        let path = directory.join("below/config.toml");
        assert!(Contexts::read(&path).unwrap().contexts.is_empty());
        let mut contexts = Contexts::default();
        contexts.add(context("acme")).unwrap();
        contexts.write(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Contexts::read(&path).unwrap();
        assert_eq!(read.current.as_ref().map(Name::as_str), Some("acme"));
        let credential = read.take(&"acme".parse().unwrap()).unwrap();
        assert_eq!(credential.ca_pem, "a\nb\n");
        assert_eq!(credential.key_pem.expose(), "key");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let failure = Contexts::read(&path).unwrap_err();
        assert_eq!(failure.hint, Some(format!("chmod 600 {}", path.display())));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "curent = \"acme\"").unwrap();
        let failure = Contexts::read(&path).unwrap_err();
        assert!(failure.message.contains("curent"), "{failure}");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_is_not_written_goes_again() {
        let path = std::env::temp_dir().join(format!("ployz-new-file-{}", std::process::id()));
        drop(NewFile::create(path.clone()).unwrap());
        assert!(!path.exists());
        NewFile::create(path.clone()).unwrap().write(b"a").unwrap();
        assert!(NewFile::create(path.clone()).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn names_are_taken_once_and_the_current_one_follows() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let mut contexts = Contexts::default();
        contexts.add(context("a")).unwrap();
        contexts.add(context("b")).unwrap();
        assert_eq!(contexts.add(context("a")).unwrap_err().code, Code::Conflict);
        assert_eq!(
            contexts.add(context(LOCAL)).unwrap_err().code,
            Code::Conflict
        );
        assert_eq!(
            contexts.rename(&name("a"), name("b")).unwrap_err().code,
            Code::Conflict
        );
        contexts.rename(&name("a"), name("c")).unwrap();
        assert_eq!(contexts.current, Some(name("c")));
        assert!(contexts.select(&name("a")).is_err());
        contexts.select(&name("b")).unwrap();
        contexts.remove(&name("b")).unwrap();
        assert_eq!(contexts.current, None);
        assert!(contexts.remove(&name("b")).is_err());
        contexts.select(&name("c")).unwrap();
        contexts.select(&name(LOCAL)).unwrap();
        assert_eq!(contexts.current, None);
    }
}
