"""Changes of the live versions: deploy, rollback, canary, promote, abort."""
