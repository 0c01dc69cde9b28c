"""Configuration schemas of all commands, their validation, and the resolvers used in conf/."""
