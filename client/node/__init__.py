"""A deployed site: enrolment, approval, the launcher that runs nothing foreign, its SuperNode, doctor."""
