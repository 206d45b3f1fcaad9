//! A client of jug's shim: its program as containerd runs it, and its socket as containerd speaks to it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use jug::protobuf::{Message, fields};

use super::{Bundle, gone, patience, runtime};

pub const NAMESPACE: &str = "testing";
pub const SERVICE: &str = "containerd.task.v2.Task";
pub const RUNNING: i64 = 2;
pub const STOPPED: i64 = 3;

/// A shim that `start` has started for a bundle, and one connection to it.
pub struct Shim<'b> {
    pub b: &'b Bundle,
    pub address: PathBuf,
    pub socket: UnixStream,
    pub stream: u32,
    pub events: Receiver<String>,
    options: Message,
}

/// The program that cargo built.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_containerd-shim-jug-v2");

/// Runs the shim's program as containerd does: in the bundle, with its flags and its environment.
pub fn program(b: &Bundle, id: &str, more: &[&str], input: &[u8]) -> (bool, Vec<u8>, String) {
    run(Command::new(PROGRAM), b, id, more, input)
}

fn run(mut shim: Command, b: &Bundle, id: &str, more: &[&str], input: &[u8]) -> (bool, Vec<u8>, String) {
    let mut child = shim
        .args(["-namespace", NAMESPACE, "-id", id, "-address", "/nowhere/containerd.sock"])
        .args(more)
        .env("TTRPC_ADDRESS", b.path("events.sock"))
        .current_dir(b.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the shim");
    // One that reads nothing is no fault of the caller.
    let _ = child.stdin.take().expect("stdin").write_all(input);
    let out = child.wait_with_output().expect("wait");
    (out.status.success(), out.stdout, String::from_utf8_lossy(&out.stderr).into_owned())
}

/// The options that name the runtime under test, unless it is the jug-oci beside the shim.
pub fn options(b: &Bundle) -> Message {
    let runtime = runtime();
    let beside = runtime == Path::new(PROGRAM).with_file_name("jug-oci");
    named(b, if beside { Path::new("") } else { runtime })
}

/// The options with a runtime by its path, which may be empty.
pub fn named(b: &Bundle, runtime: &Path) -> Message {
    let mut options = Message::default();
    options.some_text(6, runtime.as_os_str().as_encoded_bytes()).text(7, b.path("state"));
    let mut any = Message::default();
    any.text(1, "containerd.runc.v1.Options").message(2, &options);
    any
}

/// containerd's bootstrap message, which also says where sockets go.
pub fn bootstrap(b: &Bundle, id: &str, options: &Message) -> Message {
    let mut extension = Message::default();
    extension.message(1, options);
    let mut params = Message::default();
    params.text(1, id).text(2, NAMESPACE).text(5, b.path("events.sock")).message(8, &extension);
    params.text(9, b.path("s"));
    params
}

/// Takes events as containerd does, and hands on their topics.
pub fn containerd(b: &Bundle) -> Receiver<String> {
    let (sender, receiver) = channel();
    let listener = UnixListener::bind(b.path("events.sock")).expect("bind");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            while let Some((stream, body)) = frame(&mut socket) {
                let payload = field(&body, 3);
                let envelope = field(&payload, 1);
                let topic = String::from_utf8_lossy(&field(&envelope, 3)).into_owned();
                let mut answer = 0u32.to_be_bytes().to_vec();
                answer.extend(stream.to_be_bytes());
                answer.extend([2, 0]);
                if socket.write_all(&answer).is_err() || sender.send(topic).is_err() {
                    break;
                }
            }
        }
    });
    receiver
}

/// Reads one frame: its stream and its bytes.
pub fn frame(socket: &mut UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; 10];
    socket.read_exact(&mut header).ok()?;
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four"));
    let mut body = vec![0; word(0) as usize];
    socket.read_exact(&mut body).ok()?;
    Some((word(4), body))
}

pub fn field(bytes: &[u8], number: u64) -> Vec<u8> {
    fields(bytes)
        .find(|(field, _)| *field == number)
        .map(|(_, value)| value.bytes().to_vec())
        .unwrap_or_default()
}

pub fn number(bytes: &[u8], field: u64) -> i64 {
    fields(bytes).find(|(number, _)| *number == field).map_or(0, |(_, value)| value.number())
}

pub fn request(id: &str) -> Message {
    let mut message = Message::default();
    message.text(1, id);
    message
}

/// Code and message of an error, or the payload.
pub type Answer = Result<Vec<u8>, (i64, String)>;

impl<'b> Shim<'b> {
    pub fn start(b: &'b Bundle) -> Self {
        Self::start_with(b, Command::new(PROGRAM), options(b))
    }

    /// With a program and an environment, and options, of one's own.
    pub fn start_with(b: &'b Bundle, program: Command, options: Message) -> Self {
        let events = containerd(b);
        let input = bootstrap(b, &b.id(), &options);
        let (good, out, said) = run(program, b, &b.id(), &["start"], input.bytes());
        assert!(good, "{said}");
        assert_eq!((number(&out, 1), field(&out, 3)), (3, b"ttrpc".to_vec()));
        let address = String::from_utf8(field(&out, 2)).expect("text");
        let address = PathBuf::from(address.strip_prefix("unix://").expect("an address"));
        let socket = connect(&address);
        Self { b, address, socket, stream: 1, events, options }
    }

    pub fn send(&mut self, service: &str, method: &str, payload: &Message) -> u32 {
        let mut request = Message::default();
        request.text(1, service).text(2, method).message(3, payload);
        let stream = self.stream;
        self.stream += 2;
        let mut frame = (request.bytes().len() as u32).to_be_bytes().to_vec();
        frame.extend(stream.to_be_bytes());
        frame.extend([1, 0]);
        frame.extend(request.bytes());
        self.socket.write_all(&frame).expect("write");
        stream
    }

    pub fn hear(&mut self) -> (u32, Answer) {
        let (stream, body) = frame(&mut self.socket).expect("an answer");
        let status = field(&body, 1);
        let code = number(&status, 1);
        let text = String::from_utf8_lossy(&field(&status, 2)).into_owned();
        (stream, if code == 0 { Ok(field(&body, 2)) } else { Err((code, text)) })
    }

    pub fn ask(&mut self, method: &str, payload: &Message) -> Answer {
        let sent = self.send(SERVICE, method, payload);
        let (stream, answer) = self.hear();
        assert_eq!(stream, sent, "{method}");
        answer
    }

    #[track_caller]
    pub fn good(&mut self, method: &str, payload: &Message) -> Vec<u8> {
        self.ask(method, payload).unwrap_or_else(|error| panic!("{method}: {error:?}"))
    }

    #[track_caller]
    pub fn refuses(&mut self, method: &str, payload: &Message, code: i64) {
        assert_eq!(self.ask(method, payload).expect_err(method).0, code, "{method}");
    }

    pub fn create_request(&self) -> Message {
        let mut create = request(&self.b.id());
        create.text(2, self.b.dir().to_string_lossy().as_bytes()).message(10, &self.options);
        create
    }

    /// Makes the container, which may have more fields, and gives its process' number.
    pub fn create(&mut self, more: &Message) -> i64 {
        let mut create = self.create_request();
        create.append(more);
        number(&self.good("Create", &create), 1)
    }

    /// Makes and starts it.
    pub fn run(&mut self, more: &Message) -> i32 {
        let pid = self.create(more);
        assert_eq!(number(&self.good("Start", &request(&self.b.id())), 1), pid);
        pid as i32
    }

    pub fn kill(&mut self) {
        let mut kill = request(&self.b.id());
        kill.number(3, 9);
        self.good("Kill", &kill);
    }

    pub fn status(&mut self) -> i64 {
        number(&self.good("State", &request(&self.b.id())), 4)
    }

    pub fn delete(&mut self) -> Vec<u8> {
        self.good("Delete", &request(&self.b.id()))
    }

    pub fn pid(&mut self) -> i32 {
        number(&self.good("Connect", &request(&self.b.id())), 1) as i32
    }

    pub fn kill_and_end(mut self) {
        self.kill();
        self.good("Wait", &request(&self.b.id()));
        self.delete();
        self.end();
    }

    /// Ends the shim, which has no container any more.
    pub fn end(mut self) {
        let pid = self.pid();
        self.good("Shutdown", &request(&self.b.id()));
        gone(pid);
        assert!(fs::symlink_metadata(&self.address).is_err(), "the socket is left");
    }
}

pub fn connect(address: &Path) -> UnixStream {
    let socket = UnixStream::connect(address).expect("connect(2)");
    socket.set_read_timeout(Some(patience())).expect("setsockopt(2)");
    socket
}
