//! Does: one owner per sandbox, journals first, then asks the provider; the client to the agent;
//! ttl; adoption after a restart. Knows no database.
