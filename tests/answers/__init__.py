"""The answers that learners give, lab by lab: ``MISTAKES`` and ``OTHERS``, which are right as well."""
