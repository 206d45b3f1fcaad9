//! An HTTP server on this machine that does what a test tells it to, and remembers what it was asked.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str())
    }
}

/// What is sent after the headers.
pub enum Body {
    Bytes(Vec<u8>),
    /// These, with a length that says something else.
    Short(Vec<u8>, u64),
    /// Chunks without end.
    Endless,
    /// These, and then nothing more, with the connection open.
    Stall(Vec<u8>, u64),
    /// A byte now and then.
    Drip(u64),
}

pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Bytes(body.into()) }
    }

    pub fn body(status: u16, body: Body) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

pub struct Hostile {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl Hostile {
    /// `answer` gets the request and how many there were before.
    pub fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (log, over, answer) = (asked.clone(), stop.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (log, over, answer) = (log.clone(), over.clone(), answer.clone());
                let Ok(stream) = stream else { continue };
                std::thread::spawn(move || serve(stream, &log, &over, &*answer));
            }
        });
        Self { port, asked, stop }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the log").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    over: &AtomicBool,
    answer: &(dyn Fn(&Asked, usize) -> Reply + Send + Sync),
) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut reader = BufReader::new(stream);
    // A TLS handshake: this one speaks HTTP only.
    if reader.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&0x16)) {
        let _ = reader.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    let Some(asked) = read(&mut reader) else { return };
    let before = {
        let mut log = log.lock().expect("the log");
        log.push(asked.clone());
        log.len() - 1
    };
    let _ = write(reader.get_mut(), &asked, answer(&asked, before), over);
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut asked = Asked { method: words.next()?, path: words.next()?, ..Asked::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        asked.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length: u64 = asked.header("content-length").and_then(|digits| digits.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut asked.body).ok()?;
    Some(asked)
}

fn write(stream: &mut TcpStream, asked: &Asked, reply: Reply, over: &AtomicBool) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Told\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let length = match &reply.body {
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::Short(_, length) | Body::Stall(_, length) | Body::Drip(length) => Some(*length),
        Body::Endless => None,
    };
    head +=
        &length.map_or("Transfer-Encoding: chunked\r\n".to_owned(), |n| format!("Content-Length: {n}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    match reply.body {
        Body::Bytes(bytes) | Body::Short(bytes, _) => stream.write_all(&bytes),
        Body::Endless => loop {
            let mut chunk = b"10000\r\n".to_vec();
            chunk.resize(7 + 0x10000, b' ');
            chunk.extend(b"\r\n");
            stream.write_all(&chunk)?;
        },
        Body::Stall(bytes, _) => {
            stream.write_all(&bytes)?;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        Body::Drip(_) => {
            while !over.load(Ordering::Relaxed) {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }
    }
}
