"""The way to a server of Amazon's: the rule of its security group, or a private link."""
