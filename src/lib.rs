//! A virtio-fs vhost-user device.

pub mod fs;
pub mod ids;
pub mod metrics;
pub mod passthrough;
pub mod server;
pub mod sys;
pub mod transport;
pub mod wire;
