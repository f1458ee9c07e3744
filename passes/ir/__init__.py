"""The intermediate representation: a `Program`, and the contract, specs and log of passes."""
