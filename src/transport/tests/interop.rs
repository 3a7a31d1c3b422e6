//! The whole way over a socket, with the `vhost` crate's front end at the other end.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::bench::{ECHO, TestHandler};
use crate::transport::test_guest::{Driver, MODES, TestMemory};
use crate::transport::{DeviceSettings, Ended, Execution, Polling, serve};

fn set_up(front: &mut Frontend, memory: &TestMemory) {
    front.set_owner().expect("acknowledged");
    let features = front.get_features().expect("answered");
    front.set_features(features).expect("acknowledged");
    let protocol = front.get_protocol_features().expect("answered");
    assert!(protocol.contains(VhostUserProtocolFeatures::CONFIG));
    front
        .set_protocol_features(protocol)
        .expect("all were offered");
    front.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    assert_eq!(front.get_queue_num().expect("answered"), 64);
    let (_, config) = front
        .get_config(0, 44, VhostUserConfigFlags::WRITABLE, &[0; 44])
        .expect("answered");
    assert_eq!(config[..6], *b"share\0");
    let (spec, file) = &memory.regions[0];
    let region = VhostUserMemoryRegionInfo {
        guest_phys_addr: spec.guest_start,
        memory_size: spec.size,
        userspace_addr: spec.user_start,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    front.set_mem_table(&[region]).expect("acknowledged");
}

fn start(front: &mut Frontend, driver: &Driver, call: &EventFd, kick: &EventFd) {
    let addresses = driver.addresses();
    let config = VringConfigData {
        queue_max_size: driver.size,
        queue_size: driver.size,
        flags: 0,
        desc_table_addr: addresses.descriptors,
        used_ring_addr: addresses.used,
        avail_ring_addr: addresses.avail,
        log_addr: None,
    };
    front.set_vring_num(1, driver.size).expect("acknowledged");
    front
        .set_vring_base(1, driver.last_used)
        .expect("acknowledged");
    front.set_vring_addr(1, &config).expect("acknowledged");
    front.set_vring_call(1, call).expect("acknowledged");
    front.set_vring_kick(1, kick).expect("acknowledged");
    front.set_vring_enable(1, true).expect("acknowledged");
}

#[test]
fn vhost_front_end_starts_uses_and_stops_a_queue_twice() {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let settings = DeviceSettings {
        tag: Some("share".to_owned()),
        execution: Execution::Inline,
        polling: Polling::Adaptive,
        num_request_queues_in_config: 1,
    };
    let handler = Arc::new(TestHandler::default());
    let theirs_handler = Arc::clone(&handler);
    let daemon = thread::spawn(move || serve(theirs, &settings, theirs_handler, &Arc::default()));

    let memory = TestMemory::new(&[(0, 0x2_0000)]);
    let mut driver = Driver::new(&memory, 0, 64, MODES[1], 0);
    let mut front = Frontend::from_stream(ours, 64);
    set_up(&mut front, &memory);
    let call = EventFd::new(0).expect("eventfd");
    let kick = EventFd::new(0).expect("eventfd");
    for round in 1..=2 {
        start(&mut front, &driver, &call, &kick);
        driver.request(&memory, 0, (ECHO, 5), 64);
        if driver.publish() {
            kick.write(1).expect("room");
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while driver.used_idx() != round {
            assert!(Instant::now() < deadline, "no completion");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(driver.collect(), Some((0, 16)));
        let base = front.get_vring_base(1).expect("answered");
        assert_eq!(base, u32::from(round));
        assert!(call.read().expect("a signal") >= 1);
    }
    front.reset_device().expect("acknowledged");
    drop(front);
    let ended = daemon.join().expect("no panic");
    assert_eq!(ended.expect("a clean end"), Ended::Disconnected);
    assert_eq!(
        handler.resets.load(std::sync::atomic::Ordering::SeqCst),
        2,
        "for the reset and for the end"
    );
}
