//! The Kubernetes runtime as a subject of the conformance suite. Its instances run this very program.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use zeroone::domain::InstallationId;
use zeroone::runtime::kubernetes::KubernetesRuntime;
use zeroone::runtime::{ContainerRuntime, InstanceKey, ObservedInstance};
use zeroone::testkit::conformance::{Act, Subject};

use crate::cluster;
use crate::world::World;

/// The first argument of this program where it is an instance.
pub(crate) const WORD: &str = "act";

pub(crate) struct KubernetesSubject {
    world: Arc<World>,
    runtime: Arc<KubernetesRuntime>,
}

impl KubernetesSubject {
    pub(crate) async fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), runtime: Arc::new(world.runtime().await) }
    }
}

impl Subject for KubernetesSubject {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::clone(&self.runtime) as Arc<dyn ContainerRuntime>
    }

    fn reopened(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        async { Arc::new(self.world.runtime().await) as Arc<dyn ContainerRuntime> }.boxed()
    }

    fn foreign(&self) -> BoxFuture<'_, Arc<dyn ContainerRuntime>> {
        async {
            let options = self.world.options().with_installation(InstallationId::new());
            Arc::new(KubernetesRuntime::open(options).await.unwrap()) as Arc<dyn ContainerRuntime>
        }
        .boxed()
    }

    fn command(&self, act: Act) -> Vec<String> {
        let words = match act {
            Act::Count(last) => vec!["count".into(), last.to_string()],
            Act::Deaf => vec!["deaf".into()],
            Act::Exit(code) => vec!["exit".into(), code.to_string()],
        };
        [vec![WORD.to_owned()], words].concat()
    }

    /// By the engine of its node, which the kubelet then has to find out.
    fn crash<'a>(&'a self, observed: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        async {
            let container = self.world.container(&observed.engine_id).expect("it runs");
            cluster::ok(&["docker", "kill", &container]);
        }
        .boxed()
    }

    fn pause<'a>(&'a self, _: &'a ObservedInstance) -> BoxFuture<'a, ()> {
        unreachable!("a cluster cannot tell a pause, so nobody asks for one")
    }

    /// In the folder of this machine that the cluster made its volume of.
    fn read<'a>(&'a self, key: &'a InstanceKey, path: &'a str) -> BoxFuture<'a, Option<Vec<u8>>> {
        async move {
            let pod = format!("zc-{}", key.agent.to_string().replace('-', ""));
            let claim = self.world.get(&["persistentvolumeclaim", &pod]);
            let volume = self.world.get(&["persistentvolume", claim["spec"]["volumeName"].as_str()?]);
            std::fs::read(std::path::Path::new(volume["spec"]["hostPath"]["path"].as_str()?).join(path)).ok()
        }
        .boxed()
    }
}

/// What an instance does.
pub(crate) fn act(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["count", last] => {
            for number in 1..=last.parse::<u32>().unwrap() {
                println!("line {number}");
            }
            until_asked_to_end();
        }
        ["hoard"] => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1_u8; 1024 * 1024]);
                std::hint::black_box(&hoard);
            }
        }
        ["deaf"] => {
            println!("deaf");
            // The first process of a container hears no signal that it does not ask for.
            loop {
                std::thread::park();
            }
        }
        #[expect(clippy::disallowed_methods, reason = "it stands for a program that ends at once")]
        ["exit", code] => std::process::exit(code.parse().unwrap()),
        words => panic!("no such act: {words:?}"),
    }
}

fn until_asked_to_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut asked = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        asked.recv().await;
    });
    #[expect(clippy::disallowed_methods, reason = "it stands for a program that ends at once")]
    std::process::exit(143);
}
