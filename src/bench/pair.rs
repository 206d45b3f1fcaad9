//! Two network namespaces with a veth pair between them (veth(4)), and somebody who answers at the far end. They live
//! as long as the two processes that hold them. It must not measure.

use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where the far end answers: of TEST-NET-1, which nobody else has (RFC 5737).
pub const FAR: &str = "192.0.2.1:7000";

/// In the near namespace: $1 holds the far one.
const NEAR: &str = r#"set -e
ip link set lo up
ip link add near type veth peer name far netns "$1"
ip address add 192.0.2.2/30 dev near
ip link set near up
nsenter --net="/proc/$1/ns/net" sh -ec 'ip link set lo up
ip address add 192.0.2.1/30 dev far
ip link set far up'
echo ready
exec sleep infinity"#;

pub struct Pair {
    near: Holder,
    _far: Holder,
}

impl Pair {
    pub fn make(payload: &Path) -> io::Result<Self> {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(payload).args(["echo", &FAR.replace("192.0.2.1", "0.0.0.0")]);
        let far = Holder::start(command)?;
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", NEAR, "sh", &far.0.id().to_string()]);
        let near = Holder::start(command)?;
        Ok(Self { near, _far: far })
    }

    /// The process whose network namespace is the near one.
    pub fn near(&self) -> u32 {
        self.near.0.id()
    }
}

/// A process that is gone when this is dropped, and its namespace with it.
struct Holder(Child);

impl Holder {
    /// Returns when it says that it is ready.
    fn start(mut command: Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut holder = Self(child);
        let output = holder.0.stdout.take().map(BufReader::new);
        let ready = |line: io::Result<String>| line.is_ok_and(|line| line.ends_with("ready"));
        if output.is_some_and(|output| output.lines().any(ready)) {
            return Ok(holder);
        }
        let errors = holder.0.stderr.take().map(io::read_to_string).transpose()?.unwrap_or_default();
        Err(io::Error::other(format!("a veth pair: {}", errors.trim())))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
