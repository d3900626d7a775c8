use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use super::*;
use crate::testkit::{Signer, TestDirectory, programs, version};

const ARCH: Arch = Arch::X86_64;

/// A base with one release in it, and the one who made it.
struct Published {
    place: TestDirectory,
    signer: Signer,
}

impl Published {
    fn new() -> Self {
        let published = Self {
            place: TestDirectory::new(),
            signer: Signer::new(1),
        };
        let programs = programs(&published.place.path().join("built"), "genuine");
        let mut artifact = Vec::new();
        archive::pack(&programs, &version(), &mut artifact).unwrap();
        published.put(&format!("0.2.0/{}", ARCH.artifact(&version())), &artifact);
        published.sum_up(&artifact, "ployz 0.2.0");
        published.put("latest", b"0.2.0\n");
        let signature = published.signer.sign(b"0.2.0\n", "ployz latest 0.2.0");
        published.put("latest.minisig", signature.as_bytes());
        published
    }

    fn sum_up(&self, artifact: &[u8], comment: &str) {
        use sha2::Digest as _;
        let sum = hex::encode(sha2::Sha256::digest(artifact));
        let sums = format!("{sum}  {}\n", ARCH.artifact(&version()));
        self.put("0.2.0/SHA256SUMS", sums.as_bytes());
        let signature = self.signer.sign(sums.as_bytes(), comment);
        self.put("0.2.0/SHA256SUMS.minisig", signature.as_bytes());
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.base().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.base().join(name);
        let mut content = fs::read(&path).unwrap();
        change(&mut content);
        fs::write(path, content).unwrap();
    }

    fn base(&self) -> PathBuf {
        self.place.path().join("base")
    }

    fn release(&self) -> Release {
        Release::new(Base::Directory(self.base()), self.signer.key())
    }

    fn download(&self, release: &Release) -> Result<Programs, Failure> {
        let directory = self.place.path().join("here");
        let result = release.download(&version(), ARCH, &directory, &mut |_| ());
        if result.is_err() {
            // Whatever has failed.
            assert_eq!(self.place.entries(), ["base", "built"]);
        }
        result
    }

    fn refusal(&self, release: &Release) -> String {
        self.download(release).unwrap_err().message
    }

    fn artifact(&self) -> String {
        format!("0.2.0/{}", ARCH.artifact(&version()))
    }
}

#[test]
fn what_is_genuine_comes_here_and_says_how_far_it_is() {
    let published = Published::new();
    let release = published.release();
    assert_eq!(release.latest(), Ok(version()));
    let directory = published.place.path().join("here");
    let mut last = None;
    let programs = release
        .download(&version(), ARCH, &directory, &mut |it| last = Some(it))
        .unwrap();
    let text = fs::read_to_string(programs.path("ployzd")).unwrap();
    assert_eq!(text, "ployzd of genuine");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
    let last = last.unwrap();
    assert_eq!(Some(last.here), last.all);
}

#[test]
fn a_mirror_is_a_base_of_what_was_genuine_when_it_was_made() {
    let published = Published::new();
    let mirror = published.place.path().join("mirror");
    published
        .release()
        .mirror(&version(), ARCH, &mirror)
        .unwrap();
    let mirrored = Release::new(Base::Directory(mirror), published.signer.key());
    mirrored.check_version(&version()).unwrap();
    assert!(mirrored.check_version(&"0.3.0".parse().unwrap()).is_err());
    published.change(&published.artifact(), |bytes| bytes[20] ^= 1);
    let directory = published.place.path().join("there");
    mirrored
        .download(&version(), ARCH, &directory, &mut |_| ())
        .unwrap();
    let other = published.place.path().join("other");
    let refused = published.release().mirror(&version(), ARCH, &other);
    assert!(refused.unwrap_err().message.contains("SHA-256"));
    assert!(!other.exists());
}

#[test]
fn a_tarball_that_was_altered_or_cut_short_is_refused() {
    let published = Published::new();
    published.change(&published.artifact(), |bytes| bytes[20] ^= 1);
    assert!(published.refusal(&published.release()).contains("SHA-256"));
    published.change(&published.artifact(), |bytes| bytes.truncate(50));
    assert!(published.refusal(&published.release()).contains("SHA-256"));
}

#[test]
fn sums_that_were_altered_are_refused() {
    let published = Published::new();
    published.change("0.2.0/SHA256SUMS", |bytes| bytes[0] ^= 1);
    let refusal = published.refusal(&published.release());
    assert!(refusal.contains("not trusted"), "{refusal}");
}

#[test]
fn signatures_of_others_and_damaged_ones_are_refused() {
    let published = Published::new();
    let stranger = Release::new(Base::Directory(published.base()), Signer::new(2).key());
    assert!(published.refusal(&stranger).contains("signature"));
    assert!(stranger.latest().is_err());
    published.change("0.2.0/SHA256SUMS.minisig", |bytes| bytes[30] ^= 1);
    assert!(
        published
            .refusal(&published.release())
            .contains("signature")
    );
    fs::remove_file(published.base().join("0.2.0/SHA256SUMS.minisig")).unwrap();
    let refusal = published.refusal(&published.release());
    assert!(refusal.contains("SHA256SUMS.minisig"), "{refusal}");
}

#[test]
fn no_version_passes_for_another() {
    let published = Published::new();
    let artifact = fs::read(published.base().join(published.artifact())).unwrap();
    published.sum_up(&artifact, "ployz 0.1.0");
    let refusal = published.refusal(&published.release());
    assert!(refusal.contains("\"ployz 0.1.0\""), "{refusal}");
    // Nor does what was signed for one purpose serve another, nor an older pointer a newer one.
    let signature = published.signer.sign(b"0.2.0\n", "ployz 0.2.0");
    published.put("latest.minisig", signature.as_bytes());
    assert!(published.release().latest().is_err());
    published.put("latest", b"0.1.0\n");
    assert!(published.release().latest().is_err());
}

#[test]
fn what_is_too_large_is_not_read_to_its_end() {
    let published = Published::new();
    published.put("latest", &[b'0'; 129]);
    let refusal = published.release().latest().unwrap_err();
    assert!(
        refusal.message.contains("larger than 128 bytes"),
        "{refusal}"
    );
}

#[test]
fn a_version_that_is_not_there_is_named() {
    let published = Published::new();
    let missing = "0.3.0".parse().unwrap();
    let directory = published.place.path().join("here");
    let refusal = published
        .release()
        .download(&missing, ARCH, &directory, &mut |_| ())
        .unwrap_err();
    assert!(refusal.message.contains("0.3.0/SHA256SUMS"), "{refusal}");
    let refusal = published
        .release()
        .download(&version(), Arch::Aarch64, &directory, &mut |_| ())
        .unwrap_err();
    assert!(refusal.message.contains("aarch64"), "{refusal}");
}

/// Answers as a web server does, from a directory, until it is asked for `/stop`.
fn serve(root: PathBuf) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        for connection in listener.incoming() {
            if !answer(connection.unwrap(), &root) {
                return;
            }
        }
    });
    (url, serving)
}

fn answer(mut connection: TcpStream, root: &Path) -> bool {
    let mut lines = BufReader::new(&connection).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let _headers = lines.take_while(|line| !line.is_empty()).count();
    let (path, cut) = path
        .strip_prefix("/cut")
        .map_or((&*path, false), |path| (path, true));
    let text = if let Some(path) = path.strip_prefix("/moved") {
        format!("HTTP/1.1 302 Found\r\nlocation: {path}\r\n")
    } else if path.starts_with("/circle") {
        format!("HTTP/1.1 302 Found\r\nlocation: {path}\r\n")
    } else {
        "HTTP/1.1 200 OK\r\n".to_owned()
    };
    let body = fs::read(root.join(path.trim_start_matches('/'))).unwrap_or_default();
    let len = body.len();
    let sent = if cut { len / 2 } else { len };
    let head = format!("{text}connection: close\r\ncontent-length: {len}\r\n\r\n");
    // A client that has heard enough is no fault of ours.
    let _gone = connection
        .write_all(head.as_bytes())
        .and_then(|()| connection.write_all(&body[..sent]));
    path != "/stop"
}

#[test]
fn a_web_server_is_as_good_as_a_directory_and_a_broken_one_is_an_error() {
    let published = Published::new();
    let (url, serving) = serve(published.base());
    let release = |path: &str| {
        let base = format!("{url}{path}").parse().unwrap();
        Release::new(base, published.signer.key())
    };
    assert_eq!(release("").latest(), Ok(version()));
    assert_eq!(release("/moved").latest(), Ok(version()));
    let circle = release("/circle").latest().unwrap_err();
    assert!(circle.message.contains("redirect"), "{circle}");
    let cut = release("/cut").latest().unwrap_err();
    assert!(cut.message.contains("/cut/latest"), "{cut}");
    published.download(&release("")).unwrap();
    assert!(
        TcpStream::connect(url.trim_start_matches("http://"))
            .and_then(|mut end| end.write_all(b"GET /stop HTTP/1.1\r\n\r\n"))
            .is_ok()
    );
    serving.join().unwrap();
    let gone = release("").latest().unwrap_err();
    assert!(gone.message.contains("latest"), "{gone}");
}
