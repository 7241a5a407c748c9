"""The pages of policy: plain HTML forms; a change is answered by a redirect to a page with its receipt."""
