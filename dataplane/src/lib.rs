pub mod offload;
pub mod uapi;
