//! A network in which nobody hears multicast: only the loopback interface is there, and it has none.

use std::process::Command;

use crate::device::{Device, Invitation, READY_WITHIN, first_line};

/// A network of its own, as long as this lives.
struct Network(String);

impl Network {
    fn new() -> Network {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes a network and so needs root: run it with sudo, or leave out --features root-tests"
        );
        let network = Network(format!("coffer-{}", std::process::id()));
        ip(&["netns", "add", &network.0]);
        ip(&["-n", &network.0, "link", "set", "lo", "up"]);
        network
    }

    /// A node in it that looks for others as a person's does.
    fn start(&self, name: &'static str, options: &[&str]) -> (Device, std::process::Child) {
        // Not by `ip netns exec`: that makes a copy of all mounts, which keeps the disks of other tests mounted.
        let network = format!("--net=/run/netns/{}", self.0);
        let device = Device::under(name, &["/usr/bin/nsenter", &network]);
        let arguments = [&["start", "--name", name, "--port", "0"], options].concat();
        let log = std::fs::File::create(device.path("node.log")).unwrap();
        let mut node = device.command(&arguments).stderr(log).spawn().unwrap();
        let out = node.stdout.take().unwrap();
        let line = first_line(out, READY_WITHIN).unwrap_or_default();
        assert!(line.starts_with("ready: "), "{line}; {}", device.log());
        (device, node)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("ip is needed: {error}"));
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn without_multicast_devices_pair_by_link_and_exchange_what_is_new() {
    let network = Network::new();
    let (first, mut first_node) = network.start("first", &[]);
    let (second, mut second_node) = network.start("second", &["--without-vault"]);
    let invitation = Invitation::of(&first, &["--accept"]);
    second.ok(&["join", &invitation.link, "--name", "second", "--yes"]);
    assert_eq!(invitation.end().code, Some(0));
    first.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    first.in_sync();
    assert_eq!(second.row(&["doc", "get", "t", "a"])["value"]["n"], 1);
    for (device, node) in [(&first, &mut first_node), (&second, &mut second_node)] {
        device.ok(&["stop"]);
        assert_eq!(node.wait().unwrap().code(), Some(0), "{}", device.log());
    }
}
