// A shared step. Put it into a shared library as vars/dockwardenGate.groovy, and call it after the push:
//
//   dockwardenGate(image: "registry.example.com/shop/app@${digest}", environment: 'production')
//
// It needs the 'dockwarden' command on the agent, and the credentials 'dockwarden-token' (secret text, scope 'gate').
def call(Map options) {
    withEnv(["IMAGE=${options.image}",
             "ENVIRONMENT=${options.environment ?: 'production'}",
             "WAIT=${options.wait ?: 600}",
             "DOCKWARDEN_SERVER=${options.server ?: env.DOCKWARDEN_SERVER}"]) {
        withCredentials([string(credentialsId: options.credentials ?: 'dockwarden-token',
                                variable: 'DOCKWARDEN_TOKEN')]) {
            try {
                // Single quotes: the shell reads the variables, so Groovy never puts the token into the script.
                sh '''
                    dockwarden gate "$IMAGE" --environment "$ENVIRONMENT" --wait "$WAIT" \
                      --report junit=dockwarden.xml --report html=dockwarden.html
                '''
            } finally {
                junit testResults: 'dockwarden.xml', allowEmptyResults: true
                archiveArtifacts artifacts: 'dockwarden.html', allowEmptyArchive: true
            }
        }
    }
}
