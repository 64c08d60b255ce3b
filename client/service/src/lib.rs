//! Producer, consumer, consumer group and admin over QUIC: the library that services link.
