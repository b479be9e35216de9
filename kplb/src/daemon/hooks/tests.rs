//! Commands that take their time, leave others behind, or send signals to themselves. What they say comes through a
//! FIFO, which ends when the last process ends that writes to it.

use std::{
    env,
    fs::{self, File},
    io::{Read as _, Write as _},
    path::PathBuf,
    process,
};

use nix::{
    sys::{signal::SigSet, stat::Mode},
    unistd::{Uid, mkfifo},
};
use tokio::{
    runtime::{self, Runtime},
    sync::mpsc,
    time::timeout,
};

use super::*;
use crate::vrrp::fsm::{Reason, State};

const SOON: Duration = Duration::from_secs(5);
/// For commands that are to end by themselves.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

/// A directory of its own, with the FIFO `to` for what commands say, and `from` for what they wait for.
struct Stage {
    directory: PathBuf,
}

/// What commands say.
#[derive(Debug, Eq, PartialEq)]
enum Said {
    /// Something writes to the FIFO.
    Begun,
    /// All that was written.
    All(String),
}

impl Stage {
    fn new(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("kplb-hooks-{}-{name}", process::id()));
        fs::create_dir(&directory).expect("a new directory");
        for name in ["to", "from"] {
            mkfifo(&directory.join(name), Mode::S_IRUSR | Mode::S_IWUSR).expect("a new FIFO");
        }
        Self { directory }
    }

    /// Hooks that run a shell script in the directory; its `$2` is the state.
    fn hooks(&self, script: &str, timeout: Duration) -> Hooks {
        let user = User::from_uid(Uid::current()).expect("users can be looked up").expect("this user has a name").name;
        let script = format!("cd {}\n{script}", self.directory.display());
        let command = ["/bin/sh", "-c", &script, "hook"].map(str::to_owned).to_vec();
        Hooks::new(&NotifyConfig { command, user, timeout }, "eth0").expect("the user exists")
    }

    /// Reads what comes through the FIFO, from the next writer on until there is none.
    fn listen(&self) -> mpsc::UnboundedReceiver<Said> {
        let (sender, said) = mpsc::unbounded_channel();
        let path = self.directory.join("to");
        std::thread::spawn(move || {
            let mut fifo = File::open(path).expect("a FIFO");
            sender.send(Said::Begun).expect("the test waits");
            let mut text = String::new();
            fifo.read_to_string(&mut text).expect("a text");
            sender.send(Said::All(text)).expect("the test waits");
        });
        said
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays is in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().expect("an epoll instance is all it takes")
}

/// The role changes.
fn call(hooks: &mut Hooks, to: State) {
    let transition = Transition { from: State::Initialize, to, reason: Reason::Started };
    hooks.run(&transition, &["198.18.0.100".to_owned()]);
}

async fn next(said: &mut mpsc::UnboundedReceiver<Said>) -> Said {
    timeout(SOON, said.recv()).await.expect("something is said soon").expect("the reader does not panic")
}

#[test]
fn a_slow_command_is_followed_by_the_newest_call() {
    let stage = Stage::new("newest");
    runtime().block_on(async {
        let script = "echo $2 >> log; if [ $2 = initialize ]; then echo > to; read line < from; else echo $2 > to; fi";
        let mut hooks = stage.hooks(script, LONG);
        let mut said = stage.listen();
        call(&mut hooks, State::Initialize);
        assert_eq!(next(&mut said).await, Said::Begun);
        assert_eq!(next(&mut said).await, Said::All("\n".to_owned()));
        call(&mut hooks, State::Master);
        call(&mut hooks, State::Backup);
        let mut said = stage.listen();
        File::create(stage.directory.join("from")).expect("a reader").write_all(b"go on\n").expect("a reader");
        assert_eq!(next(&mut said).await, Said::Begun);
        assert_eq!(next(&mut said).await, Said::All("backup\n".to_owned()));
    });
    let log = fs::read_to_string(stage.directory.join("log")).expect("a log");
    assert_eq!(log, "initialize\nbackup\n");
}

#[test]
fn nothing_outlives_a_command() {
    for (name, script, limit) in
        [("timeout", "sleep 1000 > to & wait", SHORT), ("end", "exec > to; sleep 1000 &", LONG)]
    {
        let stage = Stage::new(name);
        runtime().block_on(async {
            let mut hooks = stage.hooks(script, limit);
            let mut said = stage.listen();
            call(&mut hooks, State::Master);
            assert_eq!(next(&mut said).await, Said::Begun, "{name}");
            assert_eq!(next(&mut said).await, Said::All(String::new()), "{name}");
        });
    }
}

#[test]
fn nothing_outlives_the_agent() {
    let stage = Stage::new("agent");
    let mut said = stage.listen();
    runtime().block_on(async {
        let mut hooks = stage.hooks("sleep 1000 > to & wait", LONG);
        call(&mut hooks, State::Master);
        assert_eq!(next(&mut said).await, Said::Begun);
    });
    // That runtime is gone now.
    assert_eq!(runtime().block_on(next(&mut said)), Said::All(String::new()));
}

/// The agent blocks signals in its threads, and processes inherit that.
#[test]
fn signals_have_their_default_action() {
    let stage = Stage::new("signals");
    SigSet::from_iter([Signal::SIGTERM]).thread_block().expect("a signal");
    runtime().block_on(async {
        let mut hooks = stage.hooks("exec > to; kill -TERM $$; echo survived", LONG);
        let mut said = stage.listen();
        call(&mut hooks, State::Master);
        assert_eq!(next(&mut said).await, Said::Begun);
        assert_eq!(next(&mut said).await, Said::All(String::new()));
    });
}
