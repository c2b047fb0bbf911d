//! An engine of a test's own, which can be stopped, started and killed without harm to anybody else.
//!
//! It lives in a network namespace of its own: an engine takes the machine's bridges and packet filters for its own, and one
//! that starts in the midst of another's removes them. A pair of links leads from here to its containers and back. All that
//! it leaves on the machine is ended and removed with it, however it ended.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bollard::query_parameters::ImportImageOptions;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{StreamExt, TryStreamExt};
use tempfile::TempDir;
use zeroone::runtime::docker::{Isolation, Reach};

use crate::world::World;

/// After a crash an engine first ends what it finds running, which takes it ten seconds and more.
const UP: Duration = Duration::from_secs(60);
/// An engine that ends in order stops its containers first.
const DOWN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

pub(crate) struct OwnEngine {
    folder: TempDir,
    options: Vec<String>,
    network: Network,
    daemon: Child,
    /// The image of the real ZeroClaw that it has.
    image: &'static str,
    channels: bool,
}

/// A network namespace, and addresses that nobody else on this machine has.
struct Network {
    name: String,
    /// The first two numbers of all its addresses.
    pool: String,
}

/// Whether there can be one: only root may start it.
pub(crate) fn is_possible() -> bool {
    let root = fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t0\t"));
    let there = |program| Command::new(program).arg("--help").output().is_ok();
    root && ["dockerd", "ip", "nsenter"].into_iter().all(there)
}

impl OwnEngine {
    /// Starts one that has the image of the real ZeroClaw. `live_restore`: its containers run on without it.
    pub(crate) async fn start(world: &World, live_restore: bool) -> Self {
        Self::make(world, live_restore, None).await
    }

    /// Starts one with no more room than this for its images, containers and volumes.
    pub(crate) async fn with_room(world: &World, room: &str) -> Self {
        Self::make(world, false, Some(room)).await
    }

    /// Fills its disk until so many bytes are left.
    pub(crate) fn fill_up_to(&self, left: u64) {
        let data = self.folder.path().join("data");
        let mut filler = fs::File::create(data.join("filler")).unwrap();
        let block = vec![7; 1 << 20];
        while std::io::Write::write_all(&mut filler, &block).is_ok() {}
        filler.set_len(filler.metadata().unwrap().len().saturating_sub(left)).unwrap();
    }

    async fn make(world: &World, live_restore: bool, room: Option<&str>) -> Self {
        // Short: sockets below it must have names of less than 108 bytes.
        let folder = tempfile::Builder::new().prefix("zo-").tempdir().unwrap();
        let driver = world.docker.info().await.unwrap().driver.unwrap();
        let network = Network::make();
        let pool = &network.pool;
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(folder.path().join("daemon.json"), "{}").unwrap();
        if let Some(room) = room {
            fs::create_dir(folder.path().join("data")).unwrap();
            let size = format!("size={room}");
            let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", &at("data")]).status();
            assert!(mounted.unwrap().success(), "a file system in memory can be mounted");
        }
        let namespace = folder.path().file_name().unwrap().to_str().unwrap().replace('.', "");
        let mut options = vec![
            format!("--host=unix://{}", at("engine.sock")),
            format!("--data-root={}", at("data")),
            format!("--exec-root={}", at("exec")),
            format!("--pidfile={}", at("engine.pid")),
            format!("--config-file={}", at("daemon.json")),
            format!("--storage-driver={driver}"),
            // Where the machine has a containerd of its own, it is shared.
            format!("--containerd-namespace={namespace}"),
            format!("--containerd-plugins-namespace={namespace}-plugins"),
            format!("--host-gateway-ip={}", network.machine()),
            format!("--bip={pool}.1.1/24"),
            format!("--default-address-pool=base={pool}.128.0/17,size=24"),
            // Not every kernel has the tables that the engine wants, and here nothing is to be kept apart.
            "--iptables=false".into(),
        ];
        if live_restore {
            options.push("--live-restore".into());
        }
        let daemon = spawn(folder.path(), &network, &options);
        let mut engine = Self { folder, options, network, daemon, image: world.zeroclaw, channels: world.channels };
        engine.is_up().await;
        engine.load(&world.docker).await;
        engine
    }

    /// A world on this engine, with the real ZeroClaw as its image.
    pub(crate) fn world(&self) -> World {
        let mut world = World::on(
            self.docker().unwrap(),
            self.host(),
            self.image.into(),
            self.network.machine(),
            Isolation::Bridge,
        );
        (world.zeroclaw, world.channels) = (self.image, self.channels);
        // Not in a network of ours, but led there.
        world.options.reach = Reach::Container;
        world
    }

    /// Ends it by this signal, and starts it again.
    pub(crate) async fn restart(&mut self, signal: &str) {
        kill(signal, self.daemon.id());
        tokio::task::block_in_place(|| {
            self.is_down();
            self.forget_pids();
        });
        self.daemon = spawn(self.folder.path(), &self.network, &self.options);
        self.is_up().await;
    }

    fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("engine.sock").display())
    }

    /// `None` as long as there is no socket.
    fn docker(&self) -> Option<Docker> {
        Docker::connect_with_unix(&self.host(), UP.as_secs(), API_DEFAULT_VERSION).ok()
    }

    async fn answers(&self) -> bool {
        let Some(docker) = self.docker() else { return false };
        tokio::time::timeout(POLL * 10, docker.ping()).await.is_ok_and(|pong| pong.is_ok())
    }

    async fn is_up(&mut self) {
        let began = Instant::now();
        while !self.answers().await {
            let ended = self.daemon.try_wait().unwrap();
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < UP, "the engine does not come up, {ended:?}: {}", log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for its end, and sees to it in the end.
    fn is_down(&mut self) {
        let began = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if began.elapsed() > DOWN {
                let _ = self.daemon.kill();
            }
            std::thread::sleep(POLL);
        }
    }

    /// An engine that was killed leaves its number behind, and that of its containerd, which dies with it; the next one
    /// takes them for signs of life.
    fn forget_pids(&self) {
        for name in ["engine.pid", "exec/containerd/containerd.pid"] {
            let path = self.folder.path().join(name);
            let Ok(pid) = fs::read_to_string(&path) else { continue };
            let began = Instant::now();
            while is_alive(pid.trim()) && began.elapsed() < DOWN {
                std::thread::sleep(POLL);
            }
            let _ = fs::remove_file(path);
        }
    }

    async fn load(&self, from: &Docker) {
        let archive: Vec<_> = from.export_image(self.image).try_collect().await.unwrap();
        let docker = self.docker().unwrap().negotiate_version().await.unwrap();
        let body = bollard::body_full(archive.concat().into());
        let mut steps = std::pin::pin!(docker.import_image(ImportImageOptions::default(), body, None));
        while let Some(step) = steps.next().await {
            step.unwrap();
        }
        docker.inspect_image(self.image).await.unwrap();
    }

    /// Ends every process of its containers, and those between it and them.
    fn end_all(&self, containers: &[String]) {
        let folder = self.folder.path().to_str().unwrap();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let inside = containers.iter().any(|id| groups.contains(id.as_str()));
            if inside || String::from_utf8_lossy(&command).contains(folder) {
                kill("KILL", pid);
            }
        }
    }

    fn unmount_all(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut ours: Vec<&str> = points.filter(|point| Path::new(point).starts_with(self.folder.path())).collect();
        ours.sort_unstable();
        for point in ours.into_iter().rev() {
            run("umount", &["-l", point]);
        }
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let containers = names(&self.folder.path().join("data/containers"));
        kill("TERM", self.daemon.id());
        self.is_down();
        self.end_all(&containers);
        self.unmount_all();
        // Of version 1 there is a hierarchy for each resource.
        let hierarchies = names(Path::new("/sys/fs/cgroup"));
        let hierarchies = hierarchies.iter().map(|name| Path::new("/sys/fs/cgroup").join(name));
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            for container in &containers {
                let _ = fs::remove_dir(hierarchy.join("docker").join(container));
            }
        }
    }
}

impl Network {
    fn make() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, nth) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // Others of this kind may run on this machine, in this process or not.
        let pool = format!("10.{}", 100 + (process.wrapping_mul(4).wrapping_add(nth)) % 100);
        let network = Self { name: format!("zo{process}-{nth}"), pool };
        let (name, pool) = (&network.name, &network.pool);
        let (here, there) = (format!("{name}h"), format!("{name}n"));
        for command in [
            format!("netns add {name}"),
            format!("link add {here} type veth peer name {there} netns {name}"),
            format!("address add {pool}.0.1/30 dev {here}"),
            format!("link set {here} up"),
            format!("route add {pool}.0.0/16 via {pool}.0.2"),
            format!("-n {name} address add {pool}.0.2/30 dev {there}"),
            format!("-n {name} link set {there} up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} route add default via {pool}.0.1"),
        ] {
            let made = Command::new("ip").args(command.split(' ')).output().unwrap();
            assert!(made.status.success(), "ip {command}: {}", String::from_utf8_lossy(&made.stderr));
        }
        network
    }

    /// This machine, as those inside reach it.
    fn machine(&self) -> Ipv4Addr {
        format!("{}.0.1", self.pool).parse().unwrap()
    }
}

impl Drop for Network {
    /// The links go with their namespace.
    fn drop(&mut self) {
        run("ip", &["netns", "delete", &self.name]);
    }
}

fn spawn(folder: &Path, network: &Network, options: &[String]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    // Not by `ip netns exec`, which hides the control groups.
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", network.name)).arg("dockerd").args(options);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// A zombie is not: who should have waited for it may be gone.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn kill(signal: &str, pid: u32) {
    run("kill", &[&format!("-{signal}"), &pid.to_string()]);
}

/// Something that may be in vain: what it is about may be gone.
fn run(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
