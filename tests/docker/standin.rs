//! A gateway's stand-in: this test program itself, run inside a container with [`WORD`] as its first argument.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions,
};
use futures_util::StreamExt;

use crate::world::is_podman;

/// The argument that makes this program a stand-in.
pub(crate) const WORD: &str = "standin";

const PORT: u16 = 42_617;

/// What the container's command asks for.
pub(crate) fn main(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        // Says which run it is, then answers every request with 200.
        ["gateway"] => {
            println!("run {}", std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim());
            serve();
        }
        // A command of its own would be one word.
        ["bad", "fickle", "daemon"] => bad("ends"),
        ["bad", kind, ..] => bad(kind),
        ["deaf"] => deaf(),
        ["count", last] => count(last.parse().unwrap()),
        #[expect(clippy::disallowed_methods, reason = "it stands for a program that ends at once")]
        ["exit", code] => std::process::exit(code.parse().unwrap()),
        ["eat"] => eat(),
        ["burn"] => burn(),
        ["talk", count, length] => talk(count.parse().unwrap(), length.parse().unwrap()),
        ["reach", address] => reach(address),
        ["forget", path] => std::fs::remove_file(path).unwrap(),
        other => panic!("no such stand-in: {other:?}"),
    }
}

fn serve() {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        });
    }
}

/// More than anybody told it.
const FICKLE: &str = r#"{"entries":[{"key":"a","content":"a"},{"key":"b","content":"b"},{"key":"c","content":"c"}]}"#;

/// A gateway that is wrong in one way: it ends, lacks a provider, refuses every token, has forgotten everything, or does not
/// reach its model.
fn bad(kind: &str) {
    if kind == "ends" {
        println!("cannot read what an older version wrote");
        #[expect(clippy::disallowed_methods, reason = "it stands for a program that ends at once")]
        std::process::exit(3);
    }
    let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap_or(0);
        let head = String::from_utf8_lossy(&request[..length]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match path {
            "/health" => (200, r#"{"status":"ok","paired":true,"require_pairing":true}"#),
            _ if kind == "unpaired" => (401, r#"{"error":"Unauthorized"}"#),
            "/api/config/status" if kind == "no-provider" => {
                (200, r#"{"needs_quickstart":true,"missing":["Add a model provider."]}"#)
            }
            "/api/config/status" => (200, r#"{"needs_quickstart":false}"#),
            "/api/status" => (200, r#"{"version":"0.8.7","model":"m-1"}"#),
            "/webhook" if kind == "mute" => (500, r#"{"error":"LLM request failed"}"#),
            "/webhook" => (200, r#"{"model":"m-1","response":"OK"}"#),
            "/api/memory" if kind == "fickle" || kind == "mute" => (200, FICKLE),
            "/api/memory" => (200, r#"{"entries":[]}"#),
            _ => (404, "{}"),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
        let _ = stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes());
    }
}

/// Ignores SIGTERM.
fn deaf() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let mut asked = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        println!("deaf");
        while asked.recv().await.is_some() {}
    });
}

fn count(last: u32) {
    for number in 1..=last {
        println!("line {number}");
    }
    loop {
        std::thread::park();
    }
}

fn eat() {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![eaten.len() as u8 | 1; 1 << 20]);
    }
}

fn burn() {
    println!("listening");
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

/// Numbered lines, then one that says so, then nothing.
fn talk(count: usize, length: usize) {
    let filling = "x".repeat(length);
    let mut out = std::io::stdout().lock();
    for n in 0..count {
        writeln!(out, "{n} {filling}").unwrap();
    }
    writeln!(out, "all said").unwrap();
    out.flush().unwrap();
    loop {
        std::thread::park();
    }
}

fn reach(address: &str) {
    match TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(2)) {
        Ok(_) => println!("reached"),
        Err(error) => println!("blocked: {error}"),
    }
    loop {
        std::thread::park();
    }
}

/// The image of this program as it was built; another build has another one.
pub(crate) struct Image {
    repository: String,
    tag: String,
}

/// Marks images of stand-ins that are used under a lock.
const LABEL: &str = "zeroone.standin=locked";

/// How often somebody else's making is looked at; it takes a second or two.
const POLL: Duration = Duration::from_millis(50);

/// The lock of the image that this process uses.
static IN_USE: Mutex<Option<File>> = Mutex::new(None);

impl Image {
    /// The name of what this very program is made into.
    pub(crate) fn of_this_program() -> Self {
        let program = std::env::current_exe().unwrap();
        let built = program.metadata().unwrap();
        let modified = built.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let folder = zeroone::zeroclaw::workspace::token_hash(&program.parent().unwrap().to_str().unwrap().into());
        Self { repository: format!("zeroone-standin-{}", &folder[..12]), tag: format!("{}-{modified}", built.len()) }
    }

    fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// The image, made where it is missing: once for tests side by side, threads or processes. It is there for as long as
    /// this process is.
    pub(crate) async fn ensure(&self, docker: &Docker) -> String {
        loop {
            let lock = lock_of(&self.repository);
            lock.lock_shared().unwrap();
            if docker.inspect_image(&self.name()).await.is_ok() {
                IN_USE.lock().unwrap().get_or_insert(lock);
                return self.name();
            }
            lock.unlock().unwrap();
            // Not waited for: whoever gets it first makes the image, and then shares the lock to the end.
            if lock.try_lock().is_err() {
                tokio::time::sleep(POLL).await;
            } else if docker.inspect_image(&self.name()).await.is_err() {
                self.make(docker).await;
            }
        }
    }

    async fn make(&self, docker: &Docker) {
        let changes = [
            format!(r#"ENTRYPOINT ["/standin", "{WORD}"]"#),
            r#"CMD ["gateway"]"#.into(),
            "LABEL org.opencontainers.image.version=0.1.7".into(),
            "LABEL zeroone.profile=0.1".into(),
            format!("LABEL {LABEL}"),
        ];
        let root = archive(&std::env::current_exe().unwrap());
        if is_podman(docker).await {
            self.build(docker, &changes.join("\n"), &root).await;
        } else {
            self.import(docker, changes.into(), root).await;
        }
    }

    async fn import(&self, docker: &Docker, changes: Vec<String>, root: Vec<u8>) {
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(&self.repository)
            .tag(&self.tag)
            .changes(changes)
            .build();
        let root = bollard::body_full(root.into());
        let mut import = std::pin::pin!(docker.create_image(Some(options), Some(root), None::<DockerCredentials>));
        while let Some(step) = import.next().await {
            let step = step.unwrap();
            assert!(step.error_detail.is_none(), "{step:?}");
        }
    }

    /// Podman takes all changes of an import for one, and leaves the tag out.
    async fn build(&self, docker: &Docker, changes: &str, root: &[u8]) {
        let file = format!("FROM scratch\nADD root.tar /\n{changes}\n");
        let mut context = tar::Builder::new(Vec::new());
        for (name, content) in [("Dockerfile", file.as_bytes()), ("root.tar", root)] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            context.append_data(&mut header, name, content).unwrap();
        }
        let context = bollard::body_full(context.into_inner().unwrap().into());
        let options = BuildImageOptionsBuilder::default().t(&self.name()).build();
        let mut build = std::pin::pin!(docker.build_image(options, None, Some(context)));
        while let Some(step) = build.next().await {
            let step = step.unwrap();
            assert!(step.error_detail.is_none(), "{step:?}");
        }
    }
}

/// At the end of a run: removes the images of stand-ins that no process uses, this run's own and those of runs that were
/// cut off.
pub(crate) async fn remove_unused(docker: &Docker) {
    drop(IN_USE.lock().unwrap().take());
    let filter = HashMap::from([("label", vec![LABEL])]);
    let all = ListImagesOptionsBuilder::default().filters(&filter).build();
    let images = docker.list_images(Some(all)).await.unwrap_or_default();
    for image in images.into_iter().flat_map(|image| image.repo_tags) {
        // Podman puts the registry in front of which it would be.
        let name = image.rsplit('/').next().unwrap_or(&image);
        let Some((repository, _)) = name.split_once(':') else { continue };
        let lock = lock_of(repository);
        if lock.try_lock().is_ok() {
            let _ = docker.remove_image(&image, None::<RemoveImageOptions>, None::<DockerCredentials>).await;
        }
    }
}

/// Whoever uses an image shares its lock; the kernel gives it back when that process ends, however it does. The empty file
/// stays: to remove it would part those who wait for it from those who come later.
fn lock_of(repository: &str) -> File {
    File::create(std::env::temp_dir().join(repository)).unwrap()
}

/// A root file system with the program, what it is linked with, and the data folder.
fn archive(program: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, source: &Path| {
        let content = std::fs::read(source).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(source.metadata().unwrap().permissions().mode());
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path.trim_start_matches('/'), content.as_slice()).unwrap();
    };
    add("standin", program);
    for library in libraries(program) {
        add(library.to_str().unwrap(), &library);
    }
    for (folder, owner) in [("tmp/", 0), ("zeroclaw-data/", 65_534), ("zeroclaw-data/.zeroclaw/", 65_534)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(0);
        archive.append_data(&mut header, folder, std::io::empty()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The loader and the libraries that it loads, as `ldd` lists them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = std::process::Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
