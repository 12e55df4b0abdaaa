//! The host over real sockets.
