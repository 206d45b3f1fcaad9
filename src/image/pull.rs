//! An image comes into the store: manifest, config, and its layers side by side, each unpacked while it is downloaded.
//!
//! A layer that is there is neither downloaded nor unpacked. Two pulls of the same layer share the work: a lock per
//! layer says who does it, and the other one looks again. Nobody waits in a circle: a worker takes layers whose locks
//! are free, the largest first, and waits only when there is none, for the lowest of the rest; and layers become part
//! of the store from the bottom up. So the lowest layer that anybody misses is always somebody's work.
//!
//! This room must not know where an image comes from, nor who looks at the progress.

use std::collections::VecDeque;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest, Platform};

use super::layer::{self, Applied, Blob, Form, Ids, Wanted};
use super::manifest::{self, Document};
use super::platform;
use super::progress::{Progress, Step};
use super::reference::Reference;
use super::snapshot;
use super::source::{LONGEST_MANIFEST, Source};
use super::store::{self, Arrival, Image, Incoming, Lock, Meta, Receive, Staged, Store};
use crate::error::{Error, Result};

/// How an image is pulled.
#[derive(Debug, Clone)]
pub struct Options {
    pub platform: Platform,
    pub form: Form,
    pub ids: Ids,
    /// How many layers at once.
    pub jobs: usize,
    /// An image of that name that is there is good enough: nothing is asked of the source.
    pub missing_only: bool,
    /// Where it can be pulled from again.
    pub source: Option<String>,
    /// How often a download that breaks off is taken up again, without a byte of progress in between.
    pub retries: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platform: platform::host(),
            form: Form::Directory,
            ids: if crate::host::has_one_user() { Ids::Single } else { Ids::Kept },
            jobs: std::thread::available_parallelism().map_or(4, |cpus| cpus.get().clamp(4, MOST_JOBS)),
            missing_only: false,
            source: None,
            retries: 5,
        }
    }
}

/// How many layers at once, whatever the number of processors: each has a process that unpacks it, and buffers.
const MOST_JOBS: usize = 8;

/// Indexes may be nested; not without end.
const DEEPEST_INDEX: usize = 4;

/// How long what is unpacked waits to be written.
const WRITE_BACK: Duration = Duration::from_millis(500);

/// How much of a download is read at once, in bytes.
const CHUNK: usize = 128 << 10;

/// Pulls an image and gives it `name`. Where there is no room for it, nothing of it stays: the images that are there
/// have what was left.
pub fn pull(
    store: &Store,
    source: &dyn Source,
    name: Option<&Reference>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Image> {
    attempt(store, source, name, options, progress).map_err(|error| match error.errno() {
        libc::ENOSPC | libc::EDQUOT => {
            // What it cannot remove the next one does; the pull's own error is what has to be read.
            let _ = store.gc(true);
            error
                .why("the file system of the store has no room, or no inodes, left")
                .next("free some (jug system df, jug system prune), then do the same again")
        }
        _ => error,
    })
}

fn attempt(
    store: &Store,
    source: &dyn Source,
    name: Option<&Reference>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Image> {
    let name = name.map(ToString::to_string);
    let there = match &name {
        Some(name) => store.whole(name, &options.platform)?,
        None => None,
    };
    if let (true, Some((image, _))) = (options.missing_only, &there) {
        return Ok(image.clone());
    }
    if options.form == Form::Erofs {
        snapshot::takes_images()?;
    }
    let (answer, bytes) = source.manifest(None)?;
    store::check(&answer, &bytes)?;
    if let Some((image, digest)) = there
        && digest == *answer.digest()
    {
        return Ok(image);
    }
    let (descriptor, bytes, manifest) = choose(source, answer.clone(), bytes, &options.platform)?;
    let lease = store.lease()?;
    let blobs: Vec<Digest> = std::iter::once(&descriptor)
        .chain(std::iter::once(manifest.config()))
        .chain(manifest.layers())
        .map(|blob| blob.digest().clone())
        .collect();
    lease.keep(&blobs, &[])?;
    store.put(&descriptor, &bytes)?;
    progress.say(&format!("Copying config {}", manifest.config().digest()));
    let config = config(store, source, &manifest)?;
    check_config(&manifest, &config, &options.platform)?;
    let diff_ids = diff_ids(&config)?;
    let chains = store::chain_ids(&diff_ids);
    lease.keep(&[], &chains)?;
    let work = Work {
        store,
        source,
        options,
        progress,
        layers: manifest.layers(),
        diff_ids: &diff_ids,
        chains: &chains,
        queue: Mutex::new((0..chains.len()).collect()),
        ready: Mutex::new(chains.iter().map(|_| Slot::Open).collect()),
        changed: Condvar::new(),
        stopped: AtomicBool::new(false),
        unpacked: AtomicBool::new(false),
    };
    work.all()?;
    let unpacked = work.unpacked.load(Ordering::Relaxed);
    store.commit(&Arrival {
        manifest: &descriptor,
        parsed: &manifest,
        chains: &chains,
        unpacked,
        form: options.form,
        source: options.source.clone(),
        name: name.as_deref().map(|name| (name, answer.digest())),
    })
}

impl Store {
    /// An image by its whole name, if it is there and made for the platform, and the digest of the name.
    fn whole(&self, name: &str, wanted: &Platform) -> Result<Option<(Image, Digest)>> {
        let Some(named) = self.named(name)? else { return Ok(None) };
        // One that is damaged is pulled again.
        let Ok(mut image) = self.image(&named.image) else { return Ok(None) };
        if !platform::runs(&platform_of(&image.config), wanted) {
            return Ok(None);
        }
        if image.manifest.digest() != &named.manifest {
            image.manifest = self.held_manifest(&named.image, &named.manifest)?;
        }
        Ok(Some((image, named.digest)))
    }
}

/// The platform that an image was made for.
pub fn platform_of(config: &ImageConfiguration) -> Platform {
    let mut platform = Platform::default();
    platform.set_architecture(config.architecture().clone());
    platform.set_os(config.os().clone());
    platform.set_variant(config.variant().clone());
    platform
}

/// Follows indexes to the manifest for the platform.
fn choose(
    source: &dyn Source,
    mut descriptor: Descriptor,
    mut bytes: Vec<u8>,
    wanted: &Platform,
) -> Result<(Descriptor, Vec<u8>, ImageManifest)> {
    for _ in 0..DEEPEST_INDEX {
        let index = match manifest::parse(&bytes, Some(descriptor.media_type()))? {
            Document::Manifest(manifest) => {
                manifest::check_runnable(&manifest)?;
                return Ok((descriptor, bytes, manifest));
            }
            Document::Index(index) => index,
        };
        let chosen = platform::choose(&index, wanted).ok_or_else(|| no_platform(&index, wanted))?.clone();
        if chosen.size() > LONGEST_MANIFEST as u64 {
            return Err(Error::new(format!(
                "manifest {} is longer than {LONGEST_MANIFEST} bytes",
                chosen.digest()
            )));
        }
        (_, bytes) = source.manifest(Some(chosen.digest()))?;
        store::check(&chosen, &bytes)?;
        descriptor = chosen;
    }
    Err(Error::new(format!("indexes are nested deeper than {DEEPEST_INDEX}")))
}

fn no_platform(index: &oci_spec::image::ImageIndex, wanted: &Platform) -> Error {
    let mut there: Vec<String> =
        index.manifests().iter().filter_map(|entry| entry.platform().as_ref().map(platform::show)).collect();
    there.retain(|platform| !platform.starts_with("unknown/"));
    Error::new(format!("the image has no variant for {}", platform::show(wanted)))
        .why(format!("it has {}", if there.is_empty() { "none".to_owned() } else { there.join(", ") }))
        .next("choose one with --platform")
}

/// The config: fetched where it is not there.
fn config(store: &Store, source: &dyn Source, manifest: &ImageManifest) -> Result<ImageConfiguration> {
    let wanted = manifest.config();
    if wanted.size() > manifest::LONGEST_CONFIG {
        let longest = manifest::LONGEST_CONFIG;
        return Err(Error::new(format!("config {} is longer than {longest} bytes", wanted.digest())));
    }
    if store.blob(wanted.digest())?.is_none() {
        let mut bytes = Vec::new();
        let blob = source.blob(wanted, 0)?;
        blob.take(wanted.size() + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::new(format!("receiving config {}: {e}", wanted.digest())))?;
        store.put(wanted, &bytes)?;
    }
    let bytes = store.read_blob(wanted, manifest::LONGEST_CONFIG as usize)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::new(format!("config {}: {e}", wanted.digest())))
}

/// What no image may say (CVE-2026-57231: an entry of the environment without `=`).
fn check_config(manifest: &ImageManifest, config: &ImageConfiguration, wanted: &Platform) -> Result<()> {
    let digest = manifest.config().digest();
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
    if layers != diff_ids {
        return Err(Error::new(format!(
            "the manifest has {layers} layers, and the config {digest} {diff_ids} diff IDs"
        )));
    }
    if config.rootfs().typ() != "layers" {
        return Err(Error::new(format!("config {digest}: rootfs.type is {:?}", config.rootfs().typ())));
    }
    let own = config.config().as_ref();
    let entries = own.and_then(|config| config.env().as_ref()).into_iter().flatten();
    for (i, entry) in entries.enumerate() {
        if entry.find('=').is_none_or(|at| at == 0) || entry.contains('\0') {
            return Err(Error::new(format!(
                "config {digest}: /config/Env/{i} is {entry:?}, and not NAME=value"
            ))
            .why("such an entry would take its value from the environment of whoever runs the image"));
        }
    }
    let its = platform_of(config);
    if !platform::runs(&its, wanted) {
        let (its, wanted) = (platform::show(&its), platform::show(wanted));
        return Err(Error::new(format!("the image is for {its}, not for {wanted}"))
            .next(format!("--platform {its} takes it nevertheless")));
    }
    Ok(())
}

fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let parse = |text: &String| {
        text.parse::<Digest>().map_err(|e| Error::new(format!("config: diff ID {text:?}: {e}")))
    };
    config.rootfs().diff_ids().iter().map(parse).collect()
}

/// A layer on its way.
enum Slot {
    Open,
    /// Unpacked, and still locked; the ones below are not in the store yet.
    Unpacked(Box<(Staged, Applied)>),
    /// It is in the store.
    There,
    Failed(Error),
    Taken,
}

/// The layers of one image, shared by the threads that work on them.
struct Work<'a> {
    store: &'a Store,
    source: &'a dyn Source,
    options: &'a Options,
    progress: &'a dyn Progress,
    layers: &'a [Descriptor],
    diff_ids: &'a [Digest],
    chains: &'a [Digest],
    queue: Mutex<VecDeque<usize>>,
    ready: Mutex<Vec<Slot>>,
    changed: Condvar,
    stopped: AtomicBool,
    /// Something came into the store.
    unpacked: AtomicBool,
}

/// A lock of ours is never left half done: a thread that panics ends the program.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work<'_> {
    fn all(&self) -> Result<()> {
        for layer in self.layers {
            self.progress.step(layer.digest(), Step::Queued);
        }
        let jobs = self.options.jobs.clamp(1, self.layers.len().max(1));
        let published = std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| self.take_turns());
            }
            scope.spawn(|| self.write_back());
            let published = self.publish_all();
            self.stopped.store(true, Ordering::Relaxed);
            self.changed.notify_all();
            published
        });
        for slot in held(&self.ready).drain(..) {
            if let Slot::Unpacked(unpacked) = slot {
                unpacked.0.abandon(self.store)?;
            }
        }
        published
    }

    /// One worker: layers until none is left.
    fn take_turns(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            let (i, lock) = match self.next() {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err((i, error)) => {
                    self.put(i, Slot::Failed(error));
                    continue;
                }
            };
            let slot = match self.bring(i, lock) {
                Ok(Some(unpacked)) => Slot::Unpacked(Box::new(unpacked)),
                Ok(None) => Slot::There,
                Err(error) => Slot::Failed(error),
            };
            self.put(i, slot);
        }
    }

    /// Has what is unpacked written while more is: the disk would wait for the end of the pull, and the pull then for
    /// the disk. Nothing rests on it.
    fn write_back(&self) {
        loop {
            let working = |_: &mut Vec<Slot>| !self.stopped.load(Ordering::Relaxed);
            drop(self.changed.wait_timeout_while(held(&self.ready), WRITE_BACK, working));
            if self.stopped.load(Ordering::Relaxed) || self.store.write_back().is_err() {
                return;
            }
        }
    }

    fn put(&self, i: usize, slot: Slot) {
        held(&self.ready)[i] = slot;
        self.changed.notify_all();
    }

    /// The largest layer whose lock is free, or the lowest of the rest after waiting for it.
    fn next(&self) -> std::result::Result<Option<(usize, Lock)>, (usize, Error)> {
        let lowest = {
            let mut queue = held(&self.queue);
            let Some(&lowest) = queue.front() else { return Ok(None) };
            let mut by_size: Vec<usize> = queue.iter().copied().collect();
            by_size.sort_by_key(|&i| std::cmp::Reverse(self.layers[i].size()));
            for i in by_size {
                match self.store.try_lock_layer(&self.chains[i]) {
                    Ok(Some(lock)) => {
                        queue.retain(|other| *other != i);
                        return Ok(Some((i, lock)));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        queue.retain(|other| *other != i);
                        return Err((i, error));
                    }
                }
            }
            queue.pop_front();
            lowest
        };
        let waiting = || self.progress.step(self.layers[lowest].digest(), Step::Waiting);
        let lock = self.store.lock_layer(&self.chains[lowest], &waiting).map_err(|e| (lowest, e))?;
        Ok(Some((lowest, lock)))
    }

    /// Downloads and unpacks one layer; `None` when it is there.
    fn bring(&self, i: usize, lock: Lock) -> Result<Option<(Staged, Applied)>> {
        let (blob, chain) = (&self.layers[i], &self.chains[i]);
        if self.store.layer(chain)?.is_some() {
            self.progress.step(blob.digest(), Step::Exists);
            return Ok(None);
        }
        let staged = self.store.stage_layer(chain, lock)?;
        match self.fetch_and_unpack(i, &staged) {
            Ok(applied) => Ok(Some((staged, applied))),
            Err(error) => {
                let _ = staged.abandon(self.store);
                Err(error.context(format_args!("layer {}", blob.digest())))
            }
        }
    }

    fn fetch_and_unpack(&self, i: usize, staged: &Staged) -> Result<Applied> {
        let blob = &self.layers[i];
        let waiting = || self.progress.step(blob.digest(), Step::Waiting);
        let mut incoming = match self.store.receive(blob, &waiting)? {
            Receive::There(file) => {
                self.progress.step(blob.digest(), Step::Unpacking);
                return self.unpack(i, Blob { file, growing: None }, staged);
            }
            Receive::Missing(incoming) => incoming,
        };
        let resumed = incoming.found() > 0;
        let (file, pipe) = incoming.growing()?;
        let (fetched, unpacked) = std::thread::scope(|scope| {
            let unpacking = scope.spawn(|| self.unpack(i, Blob { file, growing: Some(pipe) }, staged));
            let fetched = self.download(*incoming);
            if fetched.is_ok() {
                self.progress.step(blob.digest(), Step::Unpacking);
            }
            let unpacked =
                unpacking.join().unwrap_or_else(|_| Err(Error::new("the thread that unpacks panicked")));
            (fetched, unpacked)
        });
        match fetched {
            Ok(()) => unpacked,
            // What an earlier pull had left was not of this blob: once more, from its beginning.
            Err(error) if resumed && self.store.blob(blob.digest())?.is_none() && wrong(&error) => {
                self.progress
                    .say(&format!("{}: what was left of an earlier pull is wrong, again", blob.digest()));
                staged.clear(self.store)?;
                self.fetch_and_unpack(i, staged)
            }
            Err(error) => Err(error),
        }
    }

    fn unpack(&self, i: usize, blob: Blob, staged: &Staged) -> Result<Applied> {
        let wanted = Wanted { diff_id: &self.diff_ids[i], form: self.options.form, ids: self.options.ids };
        layer::unpack(blob, staged.place(self.options.form)?.as_fd(), &wanted)
    }

    /// The rest of a blob. A stream that breaks off is taken up where it broke.
    fn download(&self, mut incoming: Incoming) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let wanted = incoming.descriptor().clone();
        let mut failures = 0;
        while incoming.length() < wanted.size() {
            let before = incoming.length();
            let Err(error) = self.stream(&mut incoming, &mut buffer, &wanted) else { continue };
            failures = if incoming.length() > before { 1 } else { failures + 1 };
            if failures > self.options.retries || self.stopped.load(Ordering::Relaxed) || lasting(&error) {
                return Err(error);
            }
            self.progress.say(&format!(
                "{}: {}, again from byte {}",
                wanted.digest(),
                error.what(),
                incoming.length()
            ));
            std::thread::sleep(Duration::from_millis(100 << failures.min(6)));
        }
        incoming.finish(self.store).map(drop)
    }

    fn stream(&self, incoming: &mut Incoming, buffer: &mut [u8], wanted: &Descriptor) -> Result<()> {
        let mut stream = self.source.blob(wanted, incoming.length())?;
        let total = wanted.size();
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Error::new("stopped, since another layer failed"));
            }
            let n = match stream.read(buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::new(format!("receiving blob {}: {e}", wanted.digest()))),
            };
            if n == 0 {
                incoming.flush().map_err(|e| incoming.failed(&e))?;
                let (length, digest) = (incoming.length(), wanted.digest());
                return if length == total {
                    Ok(())
                } else {
                    Err(Error::new(format!("blob {digest} ended after {length} of {total} bytes")))
                };
            }
            incoming.write_all(&buffer[..n]).map_err(|e| incoming.failed(&e))?;
            self.progress.step(wanted.digest(), Step::Downloading(incoming.length(), total));
        }
    }

    /// Gives the layers their names, from the bottom up.
    fn publish_all(&self) -> Result<()> {
        let mut lowers: Vec<OwnedFd> = Vec::new();
        let mut warned = std::collections::HashSet::new();
        for (i, chain) in self.chains.iter().enumerate() {
            let slot = self.wait_for(i)?;
            let layer = match slot {
                Slot::Unpacked(unpacked) => {
                    let (staged, mut applied) = *unpacked;
                    for warning in &applied.warnings {
                        if warned.insert(warning.clone()) {
                            self.progress.say(warning);
                        }
                    }
                    if let Some(tree) = staged.tree()? {
                        let below: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
                        let adopted =
                            layer::adopt(tree.as_fd(), &applied.implied, &applied.borrowed, &below)?;
                        applied.tree = adopted.unwrap_or(applied.tree);
                        if self.options.form == Form::Erofs {
                            staged.make_image(&tree, self.store)?;
                        }
                    }
                    let meta = self.meta(i, &applied);
                    let layer = staged.publish(self.store, &meta)?;
                    self.unpacked.store(true, Ordering::Relaxed);
                    self.progress.step(self.layers[i].digest(), Step::Done);
                    layer
                }
                _ => {
                    self.store.layer(chain)?.ok_or_else(|| Error::new(format!("layer {chain} went away")))?
                }
            };
            lowers.push(snapshot::root_of(&layer.path)?);
        }
        Ok(())
    }

    fn meta(&self, i: usize, applied: &Applied) -> Meta {
        Meta {
            diff_id: self.diff_ids[i].clone(),
            parent: i.checked_sub(1).map(|below| self.chains[below].clone()),
            blob: self.layers[i].digest().clone(),
            entries: applied.entries,
            bytes: applied.bytes,
            highest_id: applied.highest_id,
            tree: applied.tree.clone(),
        }
    }

    /// Waits for one layer. The error of any other comes first, since it would be waited for in vain.
    fn wait_for(&self, i: usize) -> Result<Slot> {
        let mut ready = held(&self.ready);
        loop {
            if let Some(Slot::Failed(error)) = ready.iter().find(|slot| matches!(slot, Slot::Failed(_))) {
                return Err(error.clone());
            }
            if !matches!(ready[i], Slot::Open) {
                return Ok(std::mem::replace(&mut ready[i], Slot::Taken));
            }
            ready = self.changed.wait(ready).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Whether an error is about the bytes and not about the way they came.
fn wrong(error: &Error) -> bool {
    error.what().contains("has the digest")
}

/// Whether trying again is of no use: the disk is full, or the source says more than it announced.
fn lasting(error: &Error) -> bool {
    error.errno() != 0 || error.what().contains("is longer than")
}
