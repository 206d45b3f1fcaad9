//! Network devices of the host, moved into the container's network namespace with what belongs to them.
//!
//! The kernel takes the addresses of a device that changes its namespace: the permanent global ones are put on it again
//! (config-linux.md#network-devices). A create that fails gives back what it took, as far as it can: a virtual device
//! would end with the namespace.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use crate::error::{Error, Result};
use crate::plan::namespaces::Kind;
use crate::plan::network::NetDevice;
use crate::sys::clone::setns;
use crate::sys::netlink::{Body, Message, Netlink};
use crate::sys::path;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// What the kernel says about an address and nobody may ask for: secondary, DAD failed, tentative, permanent.
const IFA_F_STATE: u32 = 0x01 | 0x08 | 0x40 | IFA_F_PERMANENT;
/// Sizes of struct ifinfomsg and struct ifaddrmsg.
const LINK: usize = 16;
const ADDRESS: usize = 8;

/// A network namespace and a socket in it.
#[derive(Debug)]
struct Side {
    namespace: OwnedFd,
    netlink: Netlink,
}

/// Devices that were moved; dropped, they go back, unless [`Moved::keep`] was reached.
#[derive(Debug)]
pub struct Moved {
    host: Side,
    container: Side,
    /// Name on the host, index inside.
    devices: Vec<(String, u32)>,
}

/// Moves the devices into the network namespace of process `pid`, which waits meanwhile.
pub fn move_in(devices: &[NetDevice], pid: i32) -> Result<Moved> {
    let open = |owner: &str| path::open(&Path::new("/proc").join(owner).join("ns/net"), libc::O_RDONLY);
    let (own, theirs) = (open("self")?, open(&pid.to_string())?);
    let host = Side { netlink: Netlink::open()?, namespace: own };
    // A socket belongs to the namespace in which it was opened.
    setns(theirs.as_fd(), Kind::Network.flag())?;
    let netlink = Netlink::open();
    setns(host.namespace.as_fd(), Kind::Network.flag())?;
    let container = Side { netlink: netlink?, namespace: theirs };
    let mut moved = Moved { host, container, devices: Vec::new() };
    for device in devices {
        let mut one = || -> Result<()> {
            let addresses = moved.host.addresses(moved.host.wanted(&device.host)?)?;
            let index = move_one(&moved.host, &moved.container, &device.host, &device.name)?;
            moved.devices.push((device.host.clone(), index));
            moved.container.furnish(index, &addresses)
        };
        one().map_err(|e| e.context(device.at()))?;
    }
    Ok(moved)
}

impl Moved {
    /// The container is made: from here on the devices are its own, as long as its namespace lives.
    pub fn keep(mut self) {
        self.devices.clear();
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        for (host, index) in self.devices.drain(..) {
            let back = || -> Result<()> {
                let inside = name(&self.container.link(index)?);
                let addresses = self.container.addresses(index)?;
                let index = move_one(&self.container, &self.host, &inside, &host)?;
                self.host.furnish(index, &addresses)
            };
            if let Err(e) = back() {
                crate::cli::log::warn(&format!("network device {host:?} did not go back: {e}"));
            }
        }
    }
}

/// Moves one device and returns its index on the other side. The kernel sets it down for that.
fn move_one(from: &Side, to: &Side, name: &str, new_name: &str) -> Result<u32> {
    let index = from.wanted(name)?;
    if !new_name.ends_with("%d") && to.find(new_name)?.is_some() {
        return Err(Error::new(format!("a network device {new_name:?} exists in the container already"))
            .next("give it another name; eth%d takes the next free number"));
    }
    let before = to.indexes()?;
    let target = (to.namespace.as_raw_fd() as u32).to_ne_bytes();
    let body = Body::link(index, 0, 0).with(IFLA_NET_NS_FD, &target).with_text(IFLA_IFNAME, new_name);
    let what = format!("rtnetlink(RTM_NEWLINK, move {name} to the other network namespace as {new_name})");
    from.netlink.ask(libc::RTM_NEWLINK, 0, &body, &what).map_err(|e| match e.errno() {
        libc::EINVAL | libc::EOPNOTSUPP => e.why("this kind of device does not change its namespace"),
        _ => e,
    })?;
    // It keeps its index where that is free, and its name may be the kernel's choice.
    to.indexes()?
        .into_iter()
        .find(|index| !before.contains(index))
        .ok_or_else(|| Error::new(format!("network device {name:?} did not arrive")))
}

impl Side {
    /// The index of a device by its name.
    fn find(&self, name: &str) -> Result<Option<u32>> {
        let body = Body::link(0, 0, 0).with_text(IFLA_IFNAME, name);
        let what = format!("rtnetlink(RTM_GETLINK, {name})");
        match self.netlink.ask(libc::RTM_GETLINK, 0, &body, &what) {
            Ok(links) => Ok(links.first().map(|link| link.word(4))),
            Err(e) if e.errno() == libc::ENODEV => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn link(&self, index: u32) -> Result<Message> {
        let what = format!("rtnetlink(RTM_GETLINK, device {index})");
        let links = self.netlink.ask(libc::RTM_GETLINK, 0, &Body::link(index, 0, 0), &what)?;
        links.into_iter().next().ok_or_else(|| Error::call(what, libc::ENODEV))
    }

    /// The index of a device that must be there.
    fn wanted(&self, name: &str) -> Result<u32> {
        self.find(name)?.ok_or_else(|| {
            Error::new(format!("network device {name:?} does not exist in the host's network namespace"))
                .next("`ip link` lists the devices there")
        })
    }

    fn indexes(&self) -> Result<Vec<u32>> {
        let all = Body::link(0, 0, 0);
        let links = self.netlink.ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &all, "rtnetlink(RTM_GETLINK)")?;
        Ok(links.iter().map(|link| link.word(4)).collect())
    }

    /// Gives a device that has come its addresses again, and sets it up.
    fn furnish(&self, index: u32, addresses: &[Message]) -> Result<()> {
        for address in addresses {
            self.add_address(index, address)?;
        }
        let what = format!("rtnetlink(RTM_NEWLINK, device {index}, up)");
        let up = Body::link(index, libc::IFF_UP as u32, libc::IFF_UP as u32);
        self.netlink.ask(libc::RTM_NEWLINK, 0, &up, &what).map(drop)
    }

    /// The permanent addresses of global scope, of any family.
    fn addresses(&self, index: u32) -> Result<Vec<Message>> {
        let body = Body::address(0, 0, 0, 0, 0);
        let all = self.netlink.ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &body, "rtnetlink(RTM_GETADDR)")?;
        let wanted = |m: &Message| {
            let global = m.0.get(3) == Some(&libc::RT_SCOPE_UNIVERSE);
            global && m.word(4) == index && flags(m) & IFA_F_PERMANENT != 0
        };
        Ok(all.into_iter().filter(wanted).collect())
    }

    fn add_address(&self, index: u32, address: &Message) -> Result<()> {
        let (family, prefix) = (address.0[0], address.0[1]);
        let mut body = Body::address(family, prefix, 0, libc::RT_SCOPE_UNIVERSE, index);
        for (kind, value) in address.attributes(ADDRESS) {
            if [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].contains(&kind) {
                body = body.with(kind, value);
            }
        }
        body = body.with(IFA_FLAGS, &(flags(address) & !IFA_F_STATE).to_ne_bytes());
        let how = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let what = format!("rtnetlink(RTM_NEWADDR, device {index}, an address of the host's)");
        self.netlink.ask(libc::RTM_NEWADDR, how, &body, &what).map(drop)
    }
}

/// The flags of an address: the attribute has all of them, the header's byte the low ones.
fn flags(address: &Message) -> u32 {
    let attributes = address.attributes(ADDRESS);
    let all = attributes.iter().find(|(kind, value)| *kind == IFA_FLAGS && value.len() == 4);
    all.map_or(u32::from(address.0.get(2).copied().unwrap_or(0)), |(_, v)| {
        u32::from_ne_bytes([v[0], v[1], v[2], v[3]])
    })
}

fn name(link: &Message) -> String {
    let attributes = link.attributes(LINK);
    let name = attributes.iter().find(|(kind, _)| *kind == IFLA_IFNAME).map_or(&[][..], |(_, value)| value);
    String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
}
