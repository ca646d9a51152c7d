"""Reports of audits and of give-backs, as they are kept in MongoDB and shown."""
