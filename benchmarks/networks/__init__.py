"""The networks that are measured, each by one name and with the same options in every framework:
`in_dsl`, `in_torch` and `in_jax`. Their parameters have the same names, too."""
